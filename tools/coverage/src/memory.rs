// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The kernel's memory, as `/proc/kcore` shows it: an ELF core file with a segment per mapping.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::Context;
use anyhow::Result;
use object::Endianness;
use object::elf;
use object::read::elf::FileHeader;
use object::read::elf::ProgramHeader;

const PATH: &str = "/proc/kcore";

/// The headers are in front of everything else, and are smaller than this.
const HEADERS: usize = 1 << 16;

/// A range of the kernel's addresses, and where it is in the file.
struct Mapping {
    start: u64,
    size: u64,
    offset: u64,
}

/// The kernel's memory, to be read.
pub struct KernelMemory {
    file: File,
    mappings: Vec<Mapping>,
}

impl KernelMemory {
    /// Opens it, which takes root and a kernel with `CONFIG_PROC_KCORE`.
    pub fn open() -> Result<Self> {
        let file = File::open(PATH).context(PATH)?;
        let mut headers = vec![0; HEADERS];
        let length = file.read_at(&mut headers, 0).context(PATH)?;
        headers.truncate(length);

        let header = elf::FileHeader64::<Endianness>::parse(&*headers).context(PATH)?;
        let endian = header.endian().context(PATH)?;
        let mappings = header
            .program_headers(endian, &*headers)
            .context(PATH)?
            .iter()
            .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
            .map(|segment| Mapping {
                start: segment.p_vaddr(endian),
                size: segment.p_memsz(endian),
                offset: segment.p_offset(endian),
            })
            .collect();
        Ok(KernelMemory { file, mappings })
    }

    /// Reads `size` bytes at `address`.
    pub fn read(&self, address: u64, size: u64) -> Result<Vec<u8>> {
        let mapping = self
            .mappings
            .iter()
            .find(|mapping| {
                address
                    .checked_sub(mapping.start)
                    .is_some_and(|at| at.checked_add(size).is_some_and(|end| end <= mapping.size))
            })
            .with_context(|| format!("{PATH} has no {size:#x} bytes at {address:#x}"))?;
        let mut bytes = vec![0; usize::try_from(size)?];

        self.file
            .read_exact_at(&mut bytes, mapping.offset + (address - mapping.start))
            .context(PATH)?;
        Ok(bytes)
    }
}
