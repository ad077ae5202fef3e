//! Numbers on the command line: each is checked against its range here, before anything is computed from it.

/// The most tokens, chunks, threads … that an option takes: llama.cpp's int32.
pub(crate) const MOST: u64 = i32::MAX as u64;

/// The largest size that an option takes, in bytes.
const LARGEST: u64 = 1 << 50;

/// Parses a whole number from `MIN` to `MAX`.
pub(crate) fn whole<const MIN: u64, const MAX: u64, T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("not a whole number".into());
    }
    let number = text.parse().ok().filter(|n| (MIN..=MAX).contains(n));
    number.and_then(|n| n.try_into().ok()).ok_or_else(|| format!("not from {MIN} to {MAX}"))
}

/// Parses a count of which there may be none.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    whole::<0, MOST, _>(text)
}

/// Parses a count of at least one.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    whole::<1, MOST, _>(text)
}

/// Parses two counts with a comma between them, not both 0.
pub(crate) fn pair(text: &str) -> Result<(usize, usize), String> {
    let (a, b) = text.split_once(',').ok_or("not two numbers with a comma between them")?;
    let pair = (count(a)?, count(b)?);
    if pair == (0, 0) { Err("both are 0".into()) } else { Ok(pair) }
}

/// Parses how many users a server has at a time.
pub(crate) fn users(text: &str) -> Result<usize, String> {
    whole::<1, 256, _>(text)
}

/// Parses the length of a piece of text.
pub(crate) fn chunk(text: &str) -> Result<usize, String> {
    whole::<4, MOST, _>(text)
}

/// Parses a number of bytes with an optional unit: 8388608, 8MiB, 1.5G, 64MB. As in llama.cpp's tools K, M and G alone are
/// powers of 1024; KB, MB and GB are powers of 1000.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    let number = &text[..text.len() - unit.len()];
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        unit => return Err(format!("unknown unit {unit:?}; use KiB, MiB, GiB, KB, MB or GB")),
    };
    let number: f64 = number.parse().map_err(|_| "not a number with an optional unit, such as 64MiB or 1.5GB")?;
    // Exact below 2⁵³, which is above what is accepted.
    let bytes = number * scale as f64;
    let bytes = (0.0..=LARGEST as f64).contains(&bytes).then_some(bytes as u64);
    bytes.and_then(|n| n.try_into().ok()).ok_or_else(|| "not from 0 to 1024TiB".into())
}

/// Parses a finite number from `MIN` to `MAX`.
pub(crate) fn range<const MIN: i32, const MAX: i32>(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "not a number".to_string())?;
    if (MIN as f32..=MAX as f32).contains(&number) { Ok(number) } else { Err(format!("not from {MIN} to {MAX}")) }
}

/// Parses a divisor of logits.
pub(crate) fn penalty(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "not a number".to_string())?;
    if (0.01..=100.0).contains(&number) { Ok(number) } else { Err("not from 0.01 to 100".into()) }
}

/// So many of something: `1 token`, `2 tokens`.
pub(crate) fn of(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_say_their_range() {
        assert_eq!(whole::<0, { u64::MAX }, u64>("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(count("0"), Ok(0));
        assert_eq!(count("2147483647"), Ok(2_147_483_647));
        for far in ["-1", "2147483648", "18446744073709551615", "18446744073709551616", "-9223372036854775808"] {
            assert_eq!(count(far), Err("not from 0 to 2147483647".into()), "{far}");
        }
        assert_eq!(positive("0"), Err("not from 1 to 2147483647".into()));
        for bad in ["", "-", "x", "1.5", "1e3", "0x10", "--1"] {
            assert_eq!(count(bad), Err("not a whole number".into()), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        let good = [
            ("8MiB", 8 << 20),
            ("512k", 512 << 10),
            ("77", 77),
            ("8MB", 8_000_000),
            ("1.5MiB", 3 << 19),
            ("0.5 GiB", 1 << 29),
            ("1kb", 1000),
            ("0", 0),
            ("1.9", 1),
        ];
        for (text, bytes) in good {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "3 parsecs", "1.5.5M", "-", "."] {
            assert!(size(bad).is_err_and(|why| !why.contains("from 0")), "{bad}");
        }
        for far in ["-1", "99999999999999999999", "18446744073709551615G", "-1.5MiB"] {
            assert_eq!(size(far), Err("not from 0 to 1024TiB".into()), "{far}");
        }
    }
}
