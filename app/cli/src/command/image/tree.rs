//! `images --tree`: one entry for each image with all its names, and whether a container uses it.

use std::collections::HashSet;

use crate::format::units;
use crate::format::value::Value;

const NAME: &str = "IMAGE";
const COLUMNS: [&str; 4] = ["ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"];
const GAP: &str = "   ";
const UNTAGGED: &str = "<untagged>";
const IN_USE: &str = "U";

/// Lays the images out. This engine has one platform of each, so no entry has branches; the content that they were made
/// of is not kept apart from what they take on the disk.
pub fn render(images: &[Value], containers: &[Value], truncate: bool) -> String {
    let used: HashSet<&str> = containers.iter().map(|container| container.text("ImageID")).collect();
    let entries: Vec<(Vec<String>, [String; 4])> = images
        .iter()
        .map(|image| {
            let tags = image.list("RepoTags").iter().filter_map(Value::as_str);
            let mut names: Vec<String> =
                tags.filter(|tag| !tag.starts_with("<none>")).map(str::to_owned).collect();
            if names.is_empty() {
                names.push(UNTAGGED.to_owned());
            }
            let id = image.text("Id");
            let id = if truncate { units::short_id(id) } else { id.to_owned() };
            let extra = if used.contains(image.text("Id")) { IN_USE } else { "" };
            (names, [id, units::size(image.int("Size")), units::size(0), extra.to_owned()])
        })
        .collect();
    let names = entries.iter().flat_map(|(names, _)| names.iter().map(|name| name.chars().count()));
    let name_width = names.chain([NAME.len()]).max().unwrap_or(0);
    let widths: Vec<usize> = COLUMNS
        .iter()
        .enumerate()
        .map(|(at, title)| {
            entries.iter().map(|(_, row)| row[at].len()).chain([title.len()]).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    let mut line = |name: &str, cells: &[String]| {
        let mut text = format!("{name:name_width$}");
        for (at, cell) in cells.iter().enumerate() {
            text.push_str(GAP);
            let width = widths[at];
            text.push_str(&match at {
                0 => format!("{cell:width$}"),
                3 => format!("{cell:^width$}"),
                _ => format!("{cell:>width$}"),
            });
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(NAME, &COLUMNS.map(str::to_owned));
    for (names, row) in &entries {
        let (last, others) = names.split_last().expect("an image without a name has got one");
        others.iter().for_each(|name| line(name, &[]));
        line(last, row);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_one_entry_with_all_its_names() {
        let list = |text: &str| match Value::parse(text.as_bytes()).unwrap() {
            Value::List(list) => list,
            other => panic!("{other:?}"),
        };
        let images = list(
            r#"[{"Id":"sha256:0123456789abcdef","RepoTags":["a:1","registry/b:2"],"Size":1980000},
                {"Id":"sha256:fedcba9876543210","RepoTags":[],"Size":0}]"#,
        );
        let containers = list(r#"[{"ImageID":"sha256:0123456789abcdef"}]"#);
        assert_eq!(
            render(&images, &containers, true),
            "IMAGE          ID             DISK USAGE   CONTENT SIZE   EXTRA\n\
             a:1\n\
             registry/b:2   0123456789ab       1.98MB             0B     U\n\
             <untagged>     fedcba987654           0B             0B\n"
        );
    }
}
