//! Amounts of memory: `512m`, `1.5g`, powers of 1024.

/// Parses an amount of memory.
pub fn parse(text: &str) -> Result<i64, String> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| format!("invalid size: '{text}'"))?;
    let unit = suffix.trim_start().to_ascii_lowercase();
    let exponent = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(format!("invalid suffix: '{suffix}'")),
    };
    Ok((number * 1024_f64.powi(exponent)) as i64)
}

/// Parses `--memory-swap`: `-1` is unlimited.
pub fn parse_swap(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { parse(text) }
}

/// Parses `--cpus` into billionths.
pub fn parse_cpus(text: &str) -> Result<i64, String> {
    let invalid = || format!("failed to parse {text} as a rational number");
    let number: f64 = text.parse().map_err(|_| invalid())?;
    if !(0.0..=1e6).contains(&number) {
        return Err(invalid());
    }
    let billionths = number * 1e9;
    if (billionths - billionths.round()).abs() > 1e-3 {
        return Err("value is too precise".to_owned());
    }
    Ok(billionths.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_powers_of_1024() {
        for (text, bytes) in
            [("1024", 1024), ("1k", 1024), ("512m", 512 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30)]
        {
            assert_eq!(parse(text).unwrap(), bytes, "{text}");
        }
        assert_eq!(parse("1x").unwrap_err(), "invalid suffix: 'x'");
        assert_eq!(parse("").unwrap_err(), "invalid size: ''");
        assert!(parse("-1").is_err());
        assert_eq!(parse_swap("-1").unwrap(), -1);
    }

    #[test]
    fn cpus_are_billionths() {
        assert_eq!(parse_cpus("1.5").unwrap(), 1_500_000_000);
        assert!(parse_cpus("x").is_err());
        assert!(parse_cpus("0.0000000001").is_err());
    }
}
