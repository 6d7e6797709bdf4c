//! Columns as Docker lays them out: at least ten wide, three blanks between, the last one unpadded.

/// Aligns tab-separated lines. Like Go's tabwriter with minimum width 10 and padding 3, a column spans
/// the neighbouring lines that have it, and a line's last cell belongs to no column.
pub fn align(lines: &[String]) -> String {
    columns(lines, 10)
}

/// Aligns lines with columns at least twenty wide, as `top` does.
pub fn align_wide(lines: &[String]) -> String {
    columns(lines, 20)
}

fn columns(lines: &[String], minimum: usize) -> String {
    let rows: Vec<Vec<&str>> =
        lines.iter().flat_map(|line| line.split('\n')).map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = rows.iter().map(|row| vec![0; row.len() - 1]).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..count {
        let mut start = 0;
        while start < rows.len() {
            if rows[start].len() <= column + 1 {
                start += 1;
                continue;
            }
            let end = (start..rows.len()).find(|&row| rows[row].len() <= column + 1).unwrap_or(rows.len());
            let widest = rows[start..end].iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            for row in &mut widths[start..end] {
                row[column] = (widest + 3).max(minimum);
            }
            start = end;
        }
    }
    let mut out = String::new();
    for (row, widths) in rows.iter().zip(&widths) {
        for (cell, width) in row.iter().zip(widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
        }
        out.push_str(row.last().copied().unwrap_or_default());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_ten_wide_at_least_and_three_apart() {
        let lines = ["ID\tIMAGE\tNAMES".to_owned(), "0123456789ab\tbox\tx".to_owned()];
        assert_eq!(align(&lines), "ID             IMAGE     NAMES\n0123456789ab   box       x\n");
    }

    #[test]
    fn lines_without_tabs_pass_through() {
        assert_eq!(align(&["plain".to_owned()]), "plain\n");
        assert_eq!(align(&[]), "");
    }
}
