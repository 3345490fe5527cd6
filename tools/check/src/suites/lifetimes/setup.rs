// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The modules and guests that the tests of this suite use.

use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_ioctls::Kvm;
use kvm_ioctls::KvmNestedStateBuffer;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Range;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::filter::WRITE;
use kvm_msr_guest::msrs;
use kvm_msr_guest::nested;
use kvm_msr_guest::nested::Nested;
use kvm_msr_guest::nested::Stop;

use crate::Arguments;
use crate::module::Module;
use crate::suites::filter_guest::NOBODY;

/// IA32_CR_PAT.
pub const PAT: u32 = 0x277;

/// delete_module() fails with this for a module in use.
pub const IN_USE: Errno = Errno::EWOULDBLOCK;

/// The modules that the tests load and unload.
pub struct Modules {
    /// The engine.
    pub engine: Module,
    /// kvm_amd or kvm_intel.
    pub vendor: Module,
    /// kvm.ko, which both need.
    pub kvm: Module,
    /// How often to load and unload the engine.
    pub loads: u32,
}

impl Modules {
    /// Reads the modules' files.
    pub fn read(arguments: &Arguments) -> Result<Self> {
        let name = ["kvm_amd", "kvm_intel"]
            .into_iter()
            .find(|name| Path::new("/sys/module").join(name).exists())
            .context("neither kvm_amd nor kvm_intel is loaded")?;
        let beside = || -> PathBuf {
            let file = format!("{}.ko", name.replace('_', "-"));

            arguments.module.with_file_name(file)
        };
        let vendor = arguments.vendor_module.clone().unwrap_or_else(beside);

        Ok(Modules {
            engine: Module::read("kvm_msr", &arguments.module)?,
            kvm: Module::read("kvm", &vendor.with_file_name("kvm.ko"))?,
            vendor: Module::read(name, &vendor)?,
            loads: arguments.loads,
        })
    }
}

/// Loads a module unless it is loaded.
pub fn loaded(module: &Module) -> Result<()> {
    if !module.is_loaded() {
        module.load().context("load the module")?;
    }
    Ok(())
}

/// Unloads a module that no VM uses. Retries for some seconds, because KVM may drop the last
/// reference shortly after the VM's last file descriptor was closed.
pub fn unload(module: &Module) -> Result<()> {
    let start = Instant::now();

    loop {
        match module.unload() {
            Ok(()) => return Ok(()),
            Err(IN_USE) if start.elapsed() < Duration::from_secs(5) => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(errno) => bail!("unload: {errno}, {} references", module.references()?),
        }
    }
}

/// A guest that this engine serves.
pub fn guest(engine: Engine) -> Result<Guest> {
    let kvm = Kvm::new().context("open /dev/kvm")?;

    Guest::new(&kvm, Options::new(engine))
}

/// A guest that C or the engine serves, as the parameter `enable` says.
pub fn any_guest() -> Result<Guest> {
    guest(Engine::Any)
}

/// Tests filter, exits and ioctls once.
pub fn works(guest: &mut Guest) -> Result<()> {
    guest.deflect(KVM_MSR_EXIT_REASON_FILTER)?;
    Filter::allow_by_default()
        .with(Range::deny(READ | WRITE, NOBODY, 8))
        .set(guest.vm())?;
    let outcome = guest.rdmsr(NOBODY)?;
    ensure!(outcome.user_space().is_some(), "denied, but {outcome}");
    guest.answer(0x77, 0);
    let outcome = guest.run()?;
    ensure!(outcome == Outcome::Value(0x77), "answered, but {outcome}");
    let outcome = guest.rdmsr(NOBODY + 8)?;
    ensure!(outcome.is_gp(), "unknown, but {outcome}");
    let value = msrs::get(guest.vcpu(), PAT)?;
    let outcome = guest.rdmsr(PAT)?;
    ensure!(
        value.map(Outcome::Value) == Some(outcome),
        "PAT is {value:x?} to user space, {outcome} to the guest"
    );
    Ok(())
}

/// A guest that the engine serves and that runs L2. Its state can be saved.
pub fn guest_in_l2() -> Result<Nested> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let mut guest = Nested::new(&kvm, nested::Options::new(Engine::Rust))?;

    guest.run_to(Stop::L2)?;
    guest.complete()?;
    Ok(guest)
}

/// The guest's nested state.
pub fn state_of(guest: &Nested) -> Result<KvmNestedStateBuffer> {
    let mut state = KvmNestedStateBuffer::empty();

    guest
        .vcpu()
        .nested_state(&mut state)
        .context("KVM_GET_NESTED_STATE")?;
    Ok(state)
}
