//! Files of `/proc` that consist of lines like `Name: value`.

use std::fs::File;
use std::io::{self, Read};

/// Reads a text file of at most `bytes_max` bytes.
pub fn read(path: &str, bytes_max: u64) -> io::Result<String> {
    let mut text = Vec::new();
    let count = File::open(path)?.take(bytes_max + 1).read_to_end(&mut text)?;
    if count as u64 > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path} is longer than {bytes_max} bytes"),
        ));
    }
    // Names in it may be anything; what is looked for is ASCII.
    Ok(String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Lines with a name, a colon and a value each.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// The whole text.
    pub text: String,
}

impl Fields {
    /// The value of the first line with this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// The words of that value.
    pub fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        self.get(name).unwrap_or_default().split_whitespace()
    }

    /// Its first word as a number of this base; zero when there is none.
    pub fn number(&self, name: &str, base: u32) -> u64 {
        self.words(name).next().and_then(|word| u64::from_str_radix(word, base).ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let fields = Fields { text: "NSpid:\t70\t3\nNS:\t1\nflags:\t02000002\n".to_owned() };
        assert_eq!(fields.words("NSpid").last(), Some("3"));
        assert_eq!(fields.number("flags", 8), 0o2000002);
        assert_eq!((fields.get("N"), fields.number("N", 10)), (None, 0));
    }

    #[test]
    fn a_text_that_is_too_long_is_refused() {
        assert!(read("/proc/self/status", 10).is_err());
        assert!(read("/proc/self/status", 1 << 20).unwrap().contains("Umask"));
    }
}
