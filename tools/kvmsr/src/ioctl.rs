// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Ioctls that kvm-ioctls lacks on x86, or for which it hides the kernel's result.

use std::io;

use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::VcpuFd;

/// The maximum number of entries for `KVM_GET_MSRS` and `KVM_SET_MSRS`: fewer than the kernel's
/// `MAX_IO_MSRS`, which is 256.
pub const MAX_ENTRIES: usize = 255;

/// The bits of an ID for `KVM_GET_ONE_REG` that mean: x86, 64 bits, an MSR.
const ONE_REG_MSR: u64 = 0x20 << 56 | 0x3 << 52 | 0x2 << 32;

/// The ID of an MSR for `KVM_GET_ONE_REG` and `KVM_SET_ONE_REG` (Linux 6.18 and later).
pub fn one_reg_id(index: u32) -> u64 {
    ONE_REG_MSR | u64::from(index)
}

/// `KVM_GET_ONE_REG` of an MSR.
///
/// # Errors
///
/// As the ioctl: `EINVAL` if KVM refuses the read, or is older than Linux 6.18.
pub fn get_one_reg(vcpu: &VcpuFd, index: u32) -> io::Result<u64> {
    let mut value = [0; 8];

    vcpu.get_one_reg(one_reg_id(index), &mut value)?;
    Ok(u64::from_le_bytes(value))
}

/// `KVM_SET_ONE_REG` of an MSR.
///
/// # Errors
///
/// As [`get_one_reg`].
pub fn set_one_reg(vcpu: &VcpuFd, index: u32, value: u64) -> io::Result<()> {
    vcpu.set_one_reg(one_reg_id(index), &value.to_le_bytes())?;
    Ok(())
}

/// `KVM_GET_MSRS` of one MSR; none if KVM refuses it.
///
/// # Errors
///
/// As the ioctl, except for a refused MSR.
pub fn get_msr(vcpu: &VcpuFd, index: u32) -> io::Result<Option<u64>> {
    let mut msrs = one_entry(index, 0)?;
    let done = vcpu.get_msrs(&mut msrs)?;

    Ok((done == 1).then(|| msrs.as_slice()[0].data))
}

/// `KVM_SET_MSRS` of one MSR; false if KVM refuses it.
///
/// # Errors
///
/// As the ioctl, except for a refused MSR.
pub fn set_msr(vcpu: &VcpuFd, index: u32, value: u64) -> io::Result<bool> {
    Ok(vcpu.set_msrs(&one_entry(index, value)?)? == 1)
}

fn one_entry(index: u32, data: u64) -> io::Result<Msrs> {
    Msrs::from_entries(&[kvm_msr_entry {
        index,
        data,
        ..Default::default()
    }])
    .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))
}

pub use raw::mce_cap_supported;
pub use raw::one_reg_list;
pub use raw::setup_mce;

#[allow(unsafe_code)]
mod raw {
    use std::io;

    use kvm_bindings::KVMIO;
    use kvm_bindings::kvm_reg_list;
    use kvm_ioctls::Kvm;
    use kvm_ioctls::VcpuFd;
    use vmm_sys_util::ioctl::ioctl_with_mut_ptr;
    use vmm_sys_util::ioctl::ioctl_with_mut_ref;
    use vmm_sys_util::ioctl::ioctl_with_ref;
    use vmm_sys_util::ioctl_ior_nr;
    use vmm_sys_util::ioctl_iow_nr;
    use vmm_sys_util::ioctl_iowr_nr;

    ioctl_iow_nr!(KVM_X86_SETUP_MCE, KVMIO, 0x9c, u64);
    ioctl_ior_nr!(KVM_X86_GET_MCE_CAP_SUPPORTED, KVMIO, 0x9d, u64);
    ioctl_iowr_nr!(KVM_GET_REG_LIST, KVMIO, 0xb0, kvm_reg_list);

    /// `KVM_X86_GET_MCE_CAP_SUPPORTED`: the value that [`setup_mce`] accepts, without the number
    /// of banks.
    ///
    /// # Errors
    ///
    /// As the ioctl.
    pub fn mce_cap_supported(kvm: &Kvm) -> io::Result<u64> {
        let mut cap = 0u64;

        // SAFETY: The kernel writes one u64.
        match unsafe { ioctl_with_mut_ref(kvm, KVM_X86_GET_MCE_CAP_SUPPORTED(), &mut cap) } {
            0 => Ok(cap),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// `KVM_X86_SETUP_MCE`: sets a vCPU's IA32_MCG_CAP, and resets all banks.
    ///
    /// # Errors
    ///
    /// As the ioctl: `EINVAL` for a value that KVM does not support.
    pub fn setup_mce(vcpu: &VcpuFd, cap: u64) -> io::Result<()> {
        // SAFETY: The kernel reads one u64.
        match unsafe { ioctl_with_ref(vcpu, KVM_X86_SETUP_MCE(), &cap) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// `KVM_GET_REG_LIST`: the IDs that `KVM_GET_ONE_REG` accepts.
    ///
    /// # Errors
    ///
    /// As the ioctl: `EINVAL` or `ENOTTY` on kernels before Linux 6.18.
    pub fn one_reg_list(vcpu: &VcpuFd) -> io::Result<Vec<u64>> {
        // struct kvm_reg_list is a count followed by IDs. If the count is too small, the kernel
        // fails with E2BIG and writes the required count.
        let mut list = vec![0u64; 1];

        loop {
            list[0] = list.len() as u64 - 1;
            // SAFETY: The kernel writes at most as many IDs as the count, and there is room for
            // them.
            let done = unsafe { ioctl_with_mut_ptr(vcpu, KVM_GET_REG_LIST(), list.as_mut_ptr()) };

            if done == 0 {
                let count = list[0] as usize;

                return Ok(list[1..].iter().copied().take(count).collect());
            }
            let error = io::Error::last_os_error();
            let needed = list[0] as usize;

            // 7 is E2BIG on Linux. If the required count does not grow, the loop would not end.
            if error.raw_os_error() != Some(7) || needed < list.len() || needed > 1 << 20 {
                return Err(error);
            }
            list.resize(needed + 1, 0);
        }
    }
}
