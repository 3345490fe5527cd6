// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Reads the files that people name, and no more of them than makes sense.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

use crate::error::Error;
use crate::error::Result;

/// The largest file that is read, in bytes: 64 MiB.
pub const LIMIT: u64 = 64 << 20;

/// Reads a file of text; `-` is standard input.
///
/// # Errors
///
/// [`Error::Io`] if it can't be read, [`Error::Input`] if it is no text or larger than [`LIMIT`].
pub fn read(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        return text(io::stdin().lock(), "standard input");
    }
    let shown = path.display().to_string();
    let file = File::open(path).map_err(|error| Error::Io {
        what: format!("can't open {shown}"),
        source: error,
    })?;

    text(file, &shown)
}

fn text(from: impl Read, name: &str) -> Result<String> {
    let mut bytes = Vec::new();

    from.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::Io {
            what: format!("can't read {name}"),
            source: error,
        })?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::Input(format!(
            "{name} is larger than {} MiB, which no file for kvmsr is",
            LIMIT >> 20
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| Error::Input(format!("{name} is not text: is it the file that you mean?")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_and_nothing_else() {
        assert_eq!(text(&b"0x10\n"[..], "a").unwrap(), "0x10\n");
        assert!(text(&b"\xff\xfe"[..], "a").is_err());
        assert!(text(io::repeat(b' '), "a").is_err());
        let error = read(Path::new("/nonexistent/file")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/file"), "{error}");
    }
}
