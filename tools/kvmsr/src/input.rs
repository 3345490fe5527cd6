// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Reads input files, up to a maximum size.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

use crate::error::Error;
use crate::error::Result;

/// The maximum size of a file, in bytes: 64 MiB.
pub const LIMIT: u64 = 64 << 20;

/// The name that means standard input.
pub const STDIN: &str = "-";
/// The name of standard input in messages.
pub const STDIN_NAME: &str = "standard input";

/// Reads a file; `-` is standard input. Returns its name, for errors, and its content.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::Input`] if it can't be read; [`Error::Input`] if it is larger than
/// [`LIMIT`].
pub fn bytes(path: &Path) -> Result<(String, Vec<u8>)> {
    if path.as_os_str() == STDIN {
        let bytes = all(io::stdin().lock(), STDIN_NAME)?;

        return Ok((STDIN_NAME.to_owned(), bytes));
    }
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| unreadable(&name, error))?;
    let bytes = all(file, &name)?;

    Ok((name, bytes))
}

/// Reads a text file; `-` is standard input.
///
/// # Errors
///
/// As [`bytes`], and [`Error::Input`] if it is not text.
pub fn read(path: &Path) -> Result<String> {
    let (name, bytes) = bytes(path)?;

    text(bytes, &name)
}

/// Converts the content of a file to text.
///
/// # Errors
///
/// [`Error::Input`] if it is not text.
pub fn text(bytes: Vec<u8>, name: &str) -> Result<String> {
    String::from_utf8(bytes)
        .map_err(|_| Error::Input(format!("{name} is not text: is it the right file?")))
}

fn all(from: impl Read, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();

    from.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(name, error))?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::Input(format!(
            "{name} is larger than {} MiB, which is kvmsr's limit",
            LIMIT >> 20
        )));
    }
    Ok(bytes)
}

fn unreadable(name: &str, error: io::Error) -> Error {
    Error::Input(match error.kind() {
        io::ErrorKind::NotFound => format!("there is no file {name}"),
        io::ErrorKind::IsADirectory => format!("{name} is a directory: name a file in it"),
        io::ErrorKind::PermissionDenied => format!("you may not read {name}"),
        _ => return Error::io(format!("read {name}"))(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_not_read() {
        let error = all(io::repeat(b' '), "file").unwrap_err().to_string();

        assert!(error.contains("larger than 64 MiB"), "{error}");
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        for (path, says) in [
            ("/nowhere/at", "no file /nowhere/at"),
            ("/", "/ is a directory"),
        ] {
            let error = read(Path::new(path)).unwrap_err().to_string();

            assert!(error.contains(says), "{error}");
        }
        assert!(text(vec![0xff, 0xfe], "file").is_err());
    }
}
