// SPDX-License-Identifier: Apache-2.0 OR MIT

//! KVM's MSR ioctls without checks, so that tests can call them with errors.
//!
//! Numbers and layouts are those of `include/uapi/linux/kvm.h`; the 32-bit
//! compat form of `KVM_X86_SET_MSR_FILTER` is in `arch/x86/kvm/x86.c`.

use std::arch::asm;
use std::fmt;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;

use kvm_bindings::kvm_enable_cap;
use kvm_bindings::kvm_one_reg;
use kvm_bindings::kvm_x86_mce;
use kvm_bindings::kvm_xen_hvm_config;

use self::number::*;
use crate::memory::UserPtr;

/// Request numbers.
mod number {
    use kvm_bindings::KVM_MSR_FILTER_MAX_RANGES;
    use kvm_bindings::KVMIO;
    use kvm_bindings::kvm_enable_cap;
    use kvm_bindings::kvm_msr_filter;
    use kvm_bindings::kvm_msr_list;
    use kvm_bindings::kvm_msrs;
    use kvm_bindings::kvm_nested_state;
    use kvm_bindings::kvm_one_reg;
    use kvm_bindings::kvm_signal_mask;
    use kvm_bindings::kvm_x86_mce;
    use kvm_bindings::kvm_xen_hvm_config;
    use vmm_sys_util::ioctl_iow_nr;
    use vmm_sys_util::ioctl_iowr_nr;

    ioctl_iowr_nr!(KVM_GET_MSR_INDEX_LIST, KVMIO, 0x02, kvm_msr_list);
    ioctl_iowr_nr!(KVM_GET_MSR_FEATURE_INDEX_LIST, KVMIO, 0x0a, kvm_msr_list);
    ioctl_iowr_nr!(KVM_GET_MSRS, KVMIO, 0x88, kvm_msrs);
    ioctl_iow_nr!(KVM_SET_MSRS, KVMIO, 0x89, kvm_msrs);
    ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, KVMIO, 0x8b, kvm_signal_mask);
    ioctl_iow_nr!(KVM_XEN_HVM_CONFIG, KVMIO, 0x7a, kvm_xen_hvm_config);
    ioctl_iow_nr!(KVM_X86_SETUP_MCE, KVMIO, 0x9c, u64);
    ioctl_iow_nr!(KVM_GET_ONE_REG, KVMIO, 0xab, kvm_one_reg);
    ioctl_iow_nr!(KVM_SET_ONE_REG, KVMIO, 0xac, kvm_one_reg);
    // The number of a list counts its header's size only: here that of the number of registers.
    ioctl_iowr_nr!(KVM_GET_REG_LIST, KVMIO, 0xb0, u64);
    ioctl_iowr_nr!(KVM_GET_NESTED_STATE, KVMIO, 0xbe, kvm_nested_state);
    ioctl_iow_nr!(KVM_SET_NESTED_STATE, KVMIO, 0xbf, kvm_nested_state);
    ioctl_iow_nr!(KVM_X86_SET_MCE, KVMIO, 0x9e, kvm_x86_mce);
    ioctl_iow_nr!(KVM_ENABLE_CAP, KVMIO, 0xa3, kvm_enable_cap);
    ioctl_iow_nr!(KVM_X86_SET_MSR_FILTER, KVMIO, 0xc6, kvm_msr_filter);
    ioctl_iow_nr!(
        KVM_X86_SET_MSR_FILTER_COMPAT,
        KVMIO,
        0xc6,
        [u32; 1 + 4 * KVM_MSR_FILTER_MAX_RANGES as usize]
    );
}

/// An error number, displayed by its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Errno(pub i32);

impl Errno {
    /// Invalid argument.
    pub const EINVAL: Errno = Errno(libc::EINVAL);
    /// Bad address.
    pub const EFAULT: Errno = Errno(libc::EFAULT);
    /// Argument list too long.
    pub const E2BIG: Errno = Errno(libc::E2BIG);
    /// Interrupted system call.
    pub const EINTR: Errno = Errno(libc::EINTR);
    /// Device or resource busy.
    pub const EBUSY: Errno = Errno(libc::EBUSY);
    /// File exists.
    pub const EEXIST: Errno = Errno(libc::EEXIST);
    /// Operation would block; the same number as `EAGAIN`.
    pub const EWOULDBLOCK: Errno = Errno(libc::EWOULDBLOCK);
    /// Out of memory.
    pub const ENOMEM: Errno = Errno(libc::ENOMEM);
    /// No such ioctl.
    pub const ENOTTY: Errno = Errno(libc::ENOTTY);
    /// No such file or directory.
    pub const ENOENT: Errno = Errno(libc::ENOENT);
    /// Input or output error.
    pub const EIO: Errno = Errno(libc::EIO);
    /// Bad file descriptor.
    pub const EBADF: Errno = Errno(libc::EBADF);
    /// Permission denied.
    pub const EACCES: Errno = Errno(libc::EACCES);
    /// No such device.
    pub const ENODEV: Errno = Errno(libc::ENODEV);
    /// Operation not supported.
    pub const EOPNOTSUPP: Errno = Errno(libc::EOPNOTSUPP);
    /// Already in progress.
    pub const EALREADY: Errno = Errno(libc::EALREADY);
    /// Not connected.
    pub const ENOTCONN: Errno = Errno(libc::ENOTCONN);

    /// The calling thread's last error.
    pub fn last() -> Self {
        Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

impl From<kvm_ioctls::Error> for Errno {
    fn from(error: kvm_ioctls::Error) -> Self {
        Errno(error.errno())
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(error: rustix::io::Errno) -> Self {
        Errno(error.raw_os_error())
    }
}

impl std::error::Error for Errno {}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            libc::EPERM => "EPERM",
            libc::ENOENT => "ENOENT",
            libc::EINTR => "EINTR",
            libc::EIO => "EIO",
            libc::ENXIO => "ENXIO",
            libc::E2BIG => "E2BIG",
            libc::ENOEXEC => "ENOEXEC",
            libc::EBADF => "EBADF",
            libc::EAGAIN => "EAGAIN",
            libc::ENOMEM => "ENOMEM",
            libc::EACCES => "EACCES",
            libc::EFAULT => "EFAULT",
            libc::EBUSY => "EBUSY",
            libc::EEXIST => "EEXIST",
            libc::ENODEV => "ENODEV",
            libc::EINVAL => "EINVAL",
            libc::ENOTTY => "ENOTTY",
            libc::ENOSYS => "ENOSYS",
            libc::EOPNOTSUPP => "EOPNOTSUPP",
            libc::EALREADY => "EALREADY",
            libc::ENOTCONN => "ENOTCONN",
            errno => return write!(f, "errno {errno}"),
        };
        f.write_str(name)
    }
}

/// The result of an ioctl.
pub type Result<T = i32> = std::result::Result<T, Errno>;

/// The system call through which an ioctl is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Abi {
    /// A 64-bit `ioctl`.
    Native,
    /// A 32-bit `ioctl`, as a 32-bit process on a 64-bit kernel makes it.
    ///
    /// Needs `CONFIG_IA32_EMULATION`, and memory of [`Mapping::low`].
    ///
    /// [`Mapping::low`]: crate::Mapping::low
    Compat,
}

impl Abi {
    /// Both of them.
    pub const ALL: [Abi; 2] = [Abi::Native, Abi::Compat];
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Abi::Native => "native",
            Abi::Compat => "compat",
        })
    }
}

/// Makes an ioctl.
///
/// # Safety
///
/// With the given arguments, the kernel must neither write to memory that belongs to Rust code,
/// nor change the process's mappings.
pub(crate) unsafe fn ioctl(abi: Abi, fd: RawFd, request: libc::c_ulong, argument: u64) -> Result {
    match abi {
        Abi::Native => {
            // SAFETY: The caller guarantees that the kernel writes to no memory of Rust's.
            let r = unsafe { libc::ioctl(fd, request as _, argument) };

            if r < 0 { Err(Errno::last()) } else { Ok(r) }
        }
        Abi::Compat => {
            const NR_IOCTL_I386: u32 = 54;
            let r: i32;

            // A truncated pointer could be valid, where an invalid one is meant.
            let argument = u32::try_from(argument).map_err(|_| Errno::EFAULT)?;
            // SAFETY: As above. The entry code clobbers R8 to R11. RBX, which can't be an operand,
            // is restored.
            unsafe {
                asm!(
                    "xchg {fd:r}, rbx",
                    "int 0x80",
                    "xchg {fd:r}, rbx",
                    fd = inout(reg) fd as u32 as u64 => _,
                    inlateout("eax") NR_IOCTL_I386 => r,
                    in("ecx") request as u32,
                    in("edx") argument,
                    lateout("r8") _,
                    lateout("r9") _,
                    lateout("r10") _,
                    lateout("r11") _,
                )
            };

            if r < 0 { Err(Errno(-r)) } else { Ok(r) }
        }
    }
}

/// `KVM_X86_SET_MSR_FILTER` with the request number for `abi`.
pub fn set_msr_filter(abi: Abi, vm: &impl AsRawFd, filter: UserPtr<'_>) -> Result {
    let request = match abi {
        Abi::Native => KVM_X86_SET_MSR_FILTER(),
        Abi::Compat => KVM_X86_SET_MSR_FILTER_COMPAT(),
    };

    // SAFETY: The kernel only reads through the pointers in this ioctl.
    unsafe { ioctl(abi, vm.as_raw_fd(), request, filter.address()) }
}

/// `KVM_X86_SET_MSR_FILTER` with the request number for the other ABI.
pub fn set_msr_filter_crossed(abi: Abi, vm: &impl AsRawFd, filter: UserPtr<'_>) -> Result {
    let request = match abi {
        Abi::Native => KVM_X86_SET_MSR_FILTER_COMPAT(),
        Abi::Compat => KVM_X86_SET_MSR_FILTER(),
    };

    // SAFETY: The kernel only reads through the pointers in this ioctl.
    unsafe { ioctl(abi, vm.as_raw_fd(), request, filter.address()) }
}

/// A list of MSR indices, from `/dev/kvm`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IndexList {
    /// `KVM_GET_MSR_INDEX_LIST`
    Saved,
    /// `KVM_GET_MSR_FEATURE_INDEX_LIST`
    Features,
}

/// Reads a list of MSR indices, for which there is room in the [`GUARD`](crate::memory::GUARD)
/// bytes from the pointer.
pub fn get_msr_index_list(kvm: &impl AsRawFd, which: IndexList, list: UserPtr<'_>) -> Result {
    let request = match which {
        IndexList::Saved => KVM_GET_MSR_INDEX_LIST(),
        IndexList::Features => KVM_GET_MSR_FEATURE_INDEX_LIST(),
    };

    // SAFETY: The kernel writes to at most a few hundred numbers. By `UserPtr`'s invariant, Rust
    // code owns none of them.
    unsafe { ioctl(Abi::Native, kvm.as_raw_fd(), request, list.address()) }
}

/// `KVM_GET_MSRS` of a vCPU, or of `/dev/kvm` for the feature MSRs.
pub fn get_msrs(abi: Abi, fd: &impl AsRawFd, msrs: UserPtr<'_>) -> Result {
    // SAFETY: The kernel writes to at most 255 entries of 16 bytes and their 8-byte header. By
    // `UserPtr`'s invariant, Rust code owns none of it.
    unsafe { ioctl(abi, fd.as_raw_fd(), KVM_GET_MSRS(), msrs.address()) }
}

/// `KVM_SET_MSRS` of a vCPU.
pub fn set_msrs(abi: Abi, vcpu: &impl AsRawFd, msrs: UserPtr<'_>) -> Result {
    // SAFETY: The kernel only reads through the pointer in this ioctl.
    unsafe { ioctl(abi, vcpu.as_raw_fd(), KVM_SET_MSRS(), msrs.address()) }
}

/// `KVM_GET_ONE_REG` of a vCPU.
pub fn get_one_reg(vcpu: &impl AsRawFd, id: u64) -> Result<u64> {
    let mut value = 0u64;
    let pointer = &raw mut value;
    let reg = kvm_one_reg {
        id,
        addr: pointer.expose_provenance() as u64,
    };

    // SAFETY: The kernel reads the structure, and writes to the value.
    unsafe {
        let argument = (&raw const reg).expose_provenance() as u64;
        ioctl(Abi::Native, vcpu.as_raw_fd(), KVM_GET_ONE_REG(), argument)?;
        Ok(pointer.read_volatile())
    }
}

/// `KVM_SET_ONE_REG` of a vCPU.
pub fn set_one_reg(vcpu: &impl AsRawFd, id: u64, value: u64) -> Result<()> {
    let reg = kvm_one_reg {
        id,
        addr: (&raw const value).expose_provenance() as u64,
    };
    let argument = (&raw const reg).expose_provenance() as u64;

    // SAFETY: The kernel only reads the structure and the value.
    unsafe { ioctl(Abi::Native, vcpu.as_raw_fd(), KVM_SET_ONE_REG(), argument) }?;
    Ok(())
}

/// `KVM_GET_ONE_REG` of a vCPU, which puts the value of the register at `value`.
pub fn get_one_reg_into(vcpu: &impl AsRawFd, id: u64, value: UserPtr<'_>) -> Result {
    let reg = kvm_one_reg {
        id,
        addr: value.address(),
    };
    let argument = (&raw const reg).expose_provenance() as u64;

    // SAFETY: The kernel reads the structure, and writes at most 8 bytes at `value`. By `UserPtr`'s
    // invariant, Rust code owns none of them.
    unsafe { ioctl(Abi::Native, vcpu.as_raw_fd(), KVM_GET_ONE_REG(), argument) }
}

/// `KVM_SET_ONE_REG` of a vCPU, with the value at `value`.
pub fn set_one_reg_from(vcpu: &impl AsRawFd, id: u64, value: UserPtr<'_>) -> Result {
    let reg = kvm_one_reg {
        id,
        addr: value.address(),
    };
    let argument = (&raw const reg).expose_provenance() as u64;

    // SAFETY: The kernel only reads through the pointers in this ioctl.
    unsafe { ioctl(Abi::Native, vcpu.as_raw_fd(), KVM_SET_ONE_REG(), argument) }
}

/// `KVM_SET_ONE_REG` of a vCPU, with the structure at `reg`.
pub fn set_one_reg_at(vcpu: &impl AsRawFd, reg: UserPtr<'_>) -> Result {
    // SAFETY: The kernel only reads through the pointers in this ioctl.
    unsafe {
        ioctl(
            Abi::Native,
            vcpu.as_raw_fd(),
            KVM_SET_ONE_REG(),
            reg.address(),
        )
    }
}

/// `KVM_GET_REG_LIST` of a vCPU.
pub fn get_reg_list(vcpu: &impl AsRawFd, list: UserPtr<'_>) -> Result {
    // SAFETY: The kernel writes a number and as many IDs. By `UserPtr`'s invariant, Rust code owns
    // none of that memory.
    unsafe {
        ioctl(
            Abi::Native,
            vcpu.as_raw_fd(),
            KVM_GET_REG_LIST(),
            list.address(),
        )
    }
}

/// `KVM_GET_NESTED_STATE` of a vCPU.
pub fn get_nested_state(vcpu: &impl AsRawFd, state: UserPtr<'_>) -> Result {
    // SAFETY: The kernel writes to at most 128 + 2 * 4096 bytes. By `UserPtr`'s invariant, Rust
    // code owns none of them.
    unsafe {
        ioctl(
            Abi::Native,
            vcpu.as_raw_fd(),
            KVM_GET_NESTED_STATE(),
            state.address(),
        )
    }
}

/// `KVM_SET_NESTED_STATE` of a vCPU.
pub fn set_nested_state(vcpu: &impl AsRawFd, state: UserPtr<'_>) -> Result {
    // SAFETY: The kernel only reads through the pointer in this ioctl.
    unsafe {
        ioctl(
            Abi::Native,
            vcpu.as_raw_fd(),
            KVM_SET_NESTED_STATE(),
            state.address(),
        )
    }
}

/// `KVM_ENABLE_CAP` of a VM, or of a vCPU.
pub fn enable_cap(fd: &impl AsRawFd, cap: u32, flags: u32, arg: u64) -> Result {
    let argument = kvm_enable_cap {
        cap,
        flags,
        args: [arg, 0, 0, 0],
        ..Default::default()
    };

    // SAFETY: The kernel only reads the structure.
    unsafe {
        ioctl(
            Abi::Native,
            fd.as_raw_fd(),
            KVM_ENABLE_CAP(),
            (&raw const argument).expose_provenance() as u64,
        )
    }
}

/// An ioctl that only reads a structure.
///
/// # Safety
///
/// The ioctl must be one that reads a `T`, and writes nothing.
unsafe fn give<T>(fd: &impl AsRawFd, request: libc::c_ulong, structure: &T) -> Result {
    let argument = (structure as *const T).expose_provenance() as u64;

    // SAFETY: The kernel only reads the structure.
    unsafe { ioctl(Abi::Native, fd.as_raw_fd(), request, argument) }
}

/// `KVM_X86_SETUP_MCE` of a vCPU: the new IA32_MCG_CAP.
pub fn setup_mce(vcpu: &impl AsRawFd, capabilities: u64) -> Result {
    // SAFETY: This ioctl reads 8 bytes.
    unsafe { give(vcpu, KVM_X86_SETUP_MCE(), &capabilities) }
}

/// `KVM_X86_SET_MCE` of a vCPU.
pub fn set_mce(vcpu: &impl AsRawFd, error: &kvm_x86_mce) -> Result {
    // SAFETY: This ioctl reads the structure.
    unsafe { give(vcpu, KVM_X86_SET_MCE(), error) }
}

/// `KVM_XEN_HVM_CONFIG` of a VM.
pub fn xen_hvm_config(vm: &impl AsRawFd, config: &kvm_xen_hvm_config) -> Result {
    // SAFETY: This ioctl reads the structure. What its addresses point to is read later.
    unsafe { give(vm, KVM_XEN_HVM_CONFIG(), config) }
}

/// `KVM_SET_SIGNAL_MASK` of a vCPU: the signals that are blocked while it runs, as a bit mask (bit
/// 0 is signal 1).
pub fn set_signal_mask(vcpu: &impl AsRawFd, blocked: u64) -> Result {
    #[repr(C, packed)]
    struct SignalMask {
        len: u32,
        sigset: u64,
    }
    let mask = SignalMask {
        len: 8,
        sigset: blocked,
    };

    // SAFETY: The kernel only reads the structure.
    unsafe {
        ioctl(
            Abi::Native,
            vcpu.as_raw_fd(),
            KVM_SET_SIGNAL_MASK(),
            (&raw const mask).expose_provenance() as u64,
        )
    }
}
