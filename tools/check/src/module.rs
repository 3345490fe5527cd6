// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Loading and unloading kernel modules.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_msr_guest::Errno;
use kvm_msr_guest::ioctl;
use object::Object;
use object::ObjectSection;
use rustix::system;

/// The sections that contain the module's name: `struct module`, and the module information.
const SECTIONS: [&str; 2] = [".gnu.linkonce.this_module", ".modinfo"];

/// A module's file, read into memory.
pub struct Module {
    name: &'static str,
    image: Vec<u8>,
}

impl Module {
    /// Reads the module `name` from its file.
    pub fn read(name: &'static str, path: &Path) -> Result<Self> {
        let image = fs::read(path).with_context(|| format!("read {}", path.display()))?;

        Ok(Module { name, image })
    }

    /// Whether a module of this name is loaded.
    pub fn is_loaded(&self) -> bool {
        Path::new("/sys/module")
            .join(self.name)
            .join("refcnt")
            .exists()
    }

    /// Loads the module. Fails with `EEXIST` if it is loaded.
    pub fn load(&self) -> ioctl::Result<()> {
        Ok(system::init_module(&self.image, c"")?)
    }

    /// Unloads the module. Fails with `EAGAIN` (i.e. `EWOULDBLOCK`) if it is in use.
    pub fn unload(&self) -> ioctl::Result<()> {
        let name = CString::new(self.name).map_err(|_| Errno::EINVAL)?;

        Ok(system::delete_module(
            &name,
            rustix::fs::OFlags::NONBLOCK.bits() as i32,
        )?)
    }

    /// The number of references to the loaded module.
    pub fn references(&self) -> Result<u32> {
        let path = Path::new("/sys/module").join(self.name).join("refcnt");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;

        text.trim().parse().context("reference count")
    }

    /// The same module under another name of the same length.
    pub fn renamed(&self, name: &'static str) -> Result<Self> {
        ensure!(name.len() == self.name.len(), "{name} has another length");

        let mut image = self.image.clone();
        let file = object::File::parse(&*self.image).context("parse the module")?;
        let mut renamed = 0;
        for section in SECTIONS {
            let (start, size) = file
                .section_by_name(section)
                .and_then(|section| section.file_range())
                .with_context(|| format!("the module has no {section}"))?;
            let bytes = &mut image[start as usize..(start + size) as usize];

            // Replace whole strings only, i.e. after a 0 or after "name=".
            for at in 1..bytes.len().saturating_sub(name.len()) {
                let found = bytes[at..].starts_with(self.name.as_bytes())
                    && bytes[at + name.len()] == 0
                    && (bytes[at - 1] == 0 || bytes[..at].ends_with(b"name="));
                if found {
                    bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
                    renamed += 1;
                }
            }
        }
        ensure!(
            renamed >= SECTIONS.len(),
            "found {} {renamed} times",
            self.name
        );
        Ok(Module { name, image })
    }
}
