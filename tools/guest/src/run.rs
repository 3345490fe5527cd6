// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Runs the stubs of [`crate::code`] on a vCPU.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use kvm_bindings::KVM_EXIT_IO;
use kvm_bindings::KVM_EXIT_X86_RDMSR;
use kvm_bindings::KVM_EXIT_X86_WRMSR;
use kvm_bindings::kvm_regs;
use kvm_ioctls::VcpuFd;

use crate::code;
use crate::code::Stub;
use crate::ioctl::Errno;
use crate::memory::Mapping;
use crate::outcome::Access;
use crate::outcome::MsrExit;
use crate::outcome::Outcome;

const RFLAGS_FIXED: u64 = 1 << 1;

/// Where a vCPU has the stubs and their stack, and how wide the words on it are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The address of [`code::bytes`].
    pub code: u64,
    /// The top of the stack, a multiple of 16.
    pub stack_top: u64,
    /// Whether the vCPU runs 64-bit code. Otherwise it runs 32-bit code.
    pub long_mode: bool,
}

impl Place {
    /// Puts the vCPU at the start of a stub, without running it. `value` goes to EDX:EAX and `count`
    /// to ESI.
    pub fn start(
        &self,
        vcpu: &VcpuFd,
        stub: Stub,
        index: u32,
        value: u64,
        count: u32,
    ) -> Result<()> {
        let regs = kvm_regs {
            rip: self.code + stub.offset() as u64,
            rsp: self.stack_top,
            rflags: RFLAGS_FIXED,
            rax: value & 0xffff_ffff,
            rdx: value >> 32,
            rcx: index.into(),
            rsi: count.into(),
            ..Default::default()
        };

        vcpu.set_regs(&regs).context("KVM_SET_REGS")
    }

    /// Runs the vCPU, which is in a stub, until it exits to user space.
    pub fn run(&self, vcpu: &mut VcpuFd, memory: &Mapping, stub: Stub) -> Result<Outcome> {
        // `struct kvm_run` has the exit, see below.
        match vcpu.run().map(|_| ()).map_err(Errno::from) {
            Err(Errno::EINTR) => return Ok(Outcome::Interrupted),
            Err(errno) => return Ok(Outcome::Failed(errno)),
            Ok(()) => {}
        }

        let run = vcpu.get_kvm_run();
        let access = match run.exit_reason {
            KVM_EXIT_X86_RDMSR => Access::Read,
            KVM_EXIT_X86_WRMSR => Access::Write,
            KVM_EXIT_IO => {
                // SAFETY: For this exit reason, KVM has filled in `io`.
                let port = unsafe { run.__bindgen_anon_1.io.port };

                return self.reported(vcpu, memory, stub, port);
            }
            reason => return Ok(Outcome::Exit(reason)),
        };

        // SAFETY: For these exit reasons, KVM has filled in `msr`.
        let msr = unsafe { run.__bindgen_anon_1.msr };
        Ok(Outcome::UserSpace(MsrExit {
            access,
            reason: msr.reason,
            index: msr.index,
            data: msr.data,
            error: msr.error,
            pad: msr.pad,
        }))
    }

    /// The outcome that the guest has reported by an OUT to `port`.
    fn reported(&self, vcpu: &VcpuFd, memory: &Mapping, stub: Stub, port: u16) -> Result<Outcome> {
        let regs = vcpu.get_regs().context("KVM_GET_REGS")?;

        if port == code::PORT_DONE {
            return Ok(match stub {
                Stub::Rdmsr | Stub::RdmsrEmulated | Stub::RdmsrLoop => {
                    Outcome::Value(regs.rdx << 32 | regs.rax & 0xffff_ffff)
                }
                _ => Outcome::Done,
            });
        }

        let vector = port.wrapping_sub(code::PORT_EXCEPTION);
        if usize::from(vector) >= code::EXCEPTIONS {
            return Ok(Outcome::Port(port));
        }

        let frame = regs.rsp as usize;
        // RFLAGS, CS and RIP; in 64-bit code, SS and RSP as well.
        let (word, words) = if self.long_mode { (8, 5) } else { (4, 3) };
        let size = self.stack_top.wrapping_sub(regs.rsp) as usize;
        let (error_code, rip) = if size == word * (words + 1) {
            (memory.read_u32(frame), memory.read_u32(frame + word))
        } else if size == word * words {
            (0, memory.read_u32(frame))
        } else {
            bail!("exception {vector} pushed {size} bytes")
        };
        Ok(Outcome::Exception {
            vector: vector as u8,
            error_code,
            offset: rip.wrapping_sub(self.code as u32 + stub.offset() as u32),
        })
    }
}
