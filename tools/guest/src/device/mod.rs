// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `/dev/kvm-msr`, with calls that a safe wrapper would not allow: wrong sizes, structures that
//! memory ends in, arrays that are not there.
//!
//! The numbers and structures of [`uapi`] are those of `rust/uapi/kvm-msr.h`.

mod array;
pub mod save_list;
pub mod uapi;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;

pub use self::array::Array;
use self::uapi::Structure;
use crate::ioctl;
use crate::ioctl::Abi;
use crate::memory::Mapping;
use crate::memory::PAGE;
use crate::memory::Protection;
use crate::memory::UserPtr;

/// The device's path.
pub const PATH: &str = "/dev/kvm-msr";

/// A policy that ignores all MSRs that KVM lacks. No policy covers the x2APIC's MSRs.
pub fn ignoring_unsupported() -> [uapi::Rule; 2] {
    let access = uapi::READ | uapi::WRITE;

    [(0, 0x7ff), (0x900, u32::MAX)].map(|(first, last)| {
        uapi::Rule::new(first, last, access, uapi::UNSUPPORTED, uapi::IGNORE, 0)
    })
}

/// An open file of the device.
#[derive(Debug)]
pub struct Device(File);

impl Device {
    /// Opens the device.
    pub fn open() -> io::Result<Self> {
        Ok(Device(File::options().read(true).write(true).open(PATH)?))
    }

    /// Opens the device and attaches it to a VM, with rights `RIGHT_*`.
    pub fn attached(vm: &impl AsRawFd, rights: u64) -> io::Result<Self> {
        let device = Self::open()?;

        device
            .attach(vm.as_raw_fd(), rights)
            .map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        Ok(device)
    }

    /// `KMSR_ATTACH`
    pub fn attach(&self, vm: RawFd, rights: u64) -> ioctl::Result {
        self.call(&mut uapi::Attach::new(vm, rights))
    }

    /// Makes a structure's ioctl, and returns its results in the structure.
    pub fn call<S: Structure>(&self, structure: &mut S) -> ioctl::Result {
        self.call_with_tail(structure, &[])
    }

    /// Prepares calls with a structure, so that a call does nothing but the ioctl.
    pub fn prepare<S: Structure>(&self, structure: S) -> io::Result<Prepared<'_, S>> {
        Ok(Prepared {
            device: self,
            memory: Mapping::new(S::SIZE)?,
            structure,
        })
    }

    /// Like [`Device::call`], with more bytes after the structure.
    pub fn call_with_tail<S: Structure>(&self, structure: &mut S, tail: &[u8]) -> ioctl::Result {
        let mut bytes = structure.to_bytes();
        bytes.extend(tail);
        let mut memory = Mapping::new(bytes.len())?;

        memory.write(0, &bytes);
        let result = self.ioctl(S::REQUEST, memory.at(0));
        structure.update(&memory.read(0, S::SIZE));
        result
    }

    /// Like [`Device::call`], but memory ends after `length` bytes of the structure.
    pub fn call_truncated<S: Structure>(&self, structure: &S, length: usize) -> ioctl::Result {
        let bytes = structure.to_bytes();
        let mut memory = Mapping::new(PAGE)?;
        let offset = memory.length() - length;

        memory.write(offset, &bytes[..length]);
        self.ioctl(S::REQUEST, memory.at(offset))
    }

    /// Like [`Device::call`], but the structure can't be written.
    pub fn call_read_only<S: Structure>(&self, structure: &S) -> ioctl::Result {
        let mut memory = Mapping::new(PAGE)?;

        memory.write(0, &structure.to_bytes());
        memory.protect(0..1, Protection::Read)?;
        self.ioctl(S::REQUEST, memory.at(0))
    }

    /// Makes an ioctl with an address that is not of user memory.
    pub fn call_nowhere(&self, request: u32) -> [ioctl::Result; 3] {
        [UserPtr::null(), UserPtr::non_canonical(), UserPtr::kernel()]
            .map(|pointer| self.ioctl(request, pointer))
    }

    /// The argument is a structure of [`Structure::to_bytes`], or part of it, or no memory.
    fn ioctl(&self, request: u32, argument: UserPtr<'_>) -> ioctl::Result {
        // SAFETY: The kernel writes to the structure, and through the addresses in it, which are
        // `UserPtr`s: it writes from their address upwards, and stops in the guard at the latest.
        unsafe {
            ioctl::ioctl(
                Abi::Native,
                self.0.as_raw_fd(),
                request.into(),
                argument.address(),
            )
        }
    }
}

/// A structure, and the memory for the kernel's copy of it.
pub struct Prepared<'a, S> {
    device: &'a Device,
    memory: Mapping,
    structure: S,
}

impl<S: Structure> Prepared<'_, S> {
    /// Makes the structure's ioctl, and returns the structure with its results.
    pub fn call(&mut self) -> ioctl::Result<&S> {
        self.memory.write(0, &self.structure.to_bytes());
        self.device.ioctl(S::REQUEST, self.memory.at(0))?;
        self.structure.update(&self.memory.read(0, S::SIZE));
        Ok(&self.structure)
    }
}

impl From<OwnedFd> for Device {
    /// A file of the device that e.g. another process has opened.
    fn from(fd: OwnedFd) -> Self {
        Device(fd.into())
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
