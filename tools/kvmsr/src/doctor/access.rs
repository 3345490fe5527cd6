// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Permissions of files.

use std::fs;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::text_of;

/// A file's owner, group and permissions, e.g. `root:kvm 0660`.
pub fn describe(metadata: &Metadata) -> String {
    format!(
        "{}:{} {:04o}",
        name_of("/etc/passwd", metadata.uid()),
        name_of("/etc/group", metadata.gid()),
        metadata.mode() & 0o7777
    )
}

/// The group of a file, if its members can read and write it and it is not root's group.
pub fn group_that_may(metadata: &Metadata) -> Option<String> {
    (metadata.mode() & 0o060 == 0o060 && metadata.gid() != 0)
        .then(|| name_of("/etc/group", metadata.gid()))
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    fs::metadata(Path::new("/proc/self")).is_ok_and(|metadata| metadata.uid() == 0)
}

/// The name for a number in a file such as `/etc/group`, or else the number.
fn name_of(file: &str, id: u32) -> String {
    find(&text_of(file).unwrap_or_default(), id).unwrap_or_else(|| match id {
        0 => "root".to_owned(),
        id => id.to_string(),
    })
}

fn find(text: &str, id: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;

        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names() {
        let groups = "root:x:0:\nkvm:x:104:qemu,me\nnonsense\n";

        assert_eq!(find(groups, 104).as_deref(), Some("kvm"));
        assert_eq!(find(groups, 105), None);
    }
}
