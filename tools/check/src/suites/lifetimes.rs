// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Loading and unloading the engine, with and without VMs.

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
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Range;
use kvm_msr_guest::engine;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::filter::WRITE;
use kvm_msr_guest::msrs;

use super::filter_guest::NOBODY;
use super::lifetimes_memory;
use super::lifetimes_nested;
use super::lifetimes_race;
use crate::Arguments;
use crate::module::Module;
use crate::report::Report;

/// IA32_CR_PAT.
pub const PAT: u32 = 0x277;

/// What delete_module() answers for a module in use.
pub const IN_USE: Errno = Errno::EWOULDBLOCK;

/// What the tests need.
pub struct Modules {
    /// The engine.
    pub engine: Module,
    vendor: Module,
    loads: u32,
}

type Test = fn(&Modules) -> Result<String>;

const TESTS: &[(&str, Test)] = &[
    ("loaded and unloaded again and again", load_and_unload),
    ("in use while a VM is attached", in_use),
    ("VM from before the load stays with C", before_load),
    ("enable decides for new VMs only", enable),
    ("vendor module changes under the engine", vendor_module),
    ("second engine is refused", second_engine),
    ("VMs race with enable", lifetimes_race::vms_race),
    ("VMs race with loading", lifetimes_race::loads_race),
    ("vCPUs race with filters", lifetimes_race::filters_race),
    (
        "nested state saved and restored again and again",
        lifetimes_nested::save_and_restore,
    ),
];

/// Runs the suite, as far as the arguments select its tests.
pub fn run(arguments: &Arguments, report: &mut Report) {
    let modules = match prepare(arguments) {
        Ok(modules) => modules,
        Err(error) => {
            report.test("lifetimes: modules".to_owned(), || Err(error));
            return;
        }
    };

    // Only the debug kernel can make allocations fail.
    let memory: Option<&(&str, Test)> = lifetimes_memory::possible()
        .then_some(&("allocations fail", lifetimes_memory::allocations_fail));

    for (name, test) in TESTS.iter().chain(memory) {
        let name = format!("lifetimes: {name}");

        if name.contains(&arguments.test) {
            report.test(name, || {
                let remark = test(&modules);
                // Whatever happened, the next test finds the engine loaded.
                let restored = loaded(&modules.engine);

                restored.and(remark)
            });
        }
    }
}

fn prepare(arguments: &Arguments) -> Result<Modules> {
    let name = ["kvm_amd", "kvm_intel"]
        .into_iter()
        .find(|name| std::path::Path::new("/sys/module").join(name).exists())
        .context("neither kvm_amd nor kvm_intel is loaded")?;
    let beside = || -> PathBuf {
        let file = format!("{}.ko", name.replace('_', "-"));

        arguments.module.with_file_name(file)
    };
    let vendor = arguments.vendor_module.clone().unwrap_or_else(beside);

    Ok(Modules {
        engine: Module::read("kvm_msr", &arguments.module)?,
        vendor: Module::read(name, &vendor)?,
        loads: arguments.loads,
    })
}

fn loaded(module: &Module) -> Result<()> {
    if !module.is_loaded() {
        module.load().context("load the module")?;
    }
    Ok(())
}

/// Unloads a module that is no longer used, though the last reference to it may
/// be dropped a little after the VM's last file descriptor is closed.
fn unload(module: &Module) -> Result<()> {
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

pub fn guest(engine: Engine) -> Result<Guest> {
    let kvm = Kvm::new().context("open /dev/kvm")?;

    Guest::new(&kvm, Options::new(engine))
}

/// A guest that is not asked to be served by anybody in particular.
pub fn any_guest() -> Result<Guest> {
    guest(Engine::Any)
}

/// Tries filter, exits and ioctls once.
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

fn load_and_unload(modules: &Modules) -> Result<String> {
    let module = &modules.engine;

    unload(module)?;
    for i in 0..modules.loads {
        let at = || format!("round {i}");

        module.load().with_context(at)?;
        ensure!(module.load() == Err(Errno::EEXIST), "loaded twice");
        // Every tenth time it also does something.
        if i % 10 == 0 {
            works(&mut guest(Engine::Rust)?).with_context(at)?;
        }
        unload(module).with_context(at)?;
        if i % 10 == 0 {
            works(&mut guest(Engine::C)?).with_context(at)?;
        }
    }
    Ok(format!("{} times", modules.loads))
}

fn in_use(modules: &Modules) -> Result<String> {
    let module = &modules.engine;
    let before = module.references()?;
    let mut first = guest(Engine::Rust)?;
    let second = guest(Engine::Rust)?;

    ensure!(
        module.references()? == before + 2,
        "{before} references, {} with two VMs",
        module.references()?
    );
    let result = module.unload();
    ensure!(result == Err(IN_USE), "unloading with two VMs: {result:?}");
    drop(second);
    works(&mut first)?;

    // The vCPU and its memory map keep the VM, as a file descriptor does.
    let vm = first.vm_fd()?;
    drop(first);
    let result = module.unload();
    ensure!(result == Err(IN_USE), "unloading with one VM: {result:?}");
    works(&mut any_guest()?)?;
    drop(vm);
    unload(module)?;
    Ok("refused as in use (EWOULDBLOCK), then done".to_owned())
}

fn before_load(modules: &Modules) -> Result<String> {
    unload(&modules.engine)?;
    let mut old = guest(Engine::C)?;
    works(&mut old)?;
    modules.engine.load()?;

    ensure!(old.folder().engine().is_none(), "it has an engine now");
    works(&mut old)?;
    let mut new = guest(Engine::Rust)?;
    works(&mut new)?;
    works(&mut old)?;
    ensure!(old.folder().engine().is_none(), "it has an engine now");

    // It is no reason not to unload, and has to outlive that.
    drop(new);
    unload(&modules.engine)?;
    works(&mut old)?;
    modules.engine.load()?;
    works(&mut old)?;
    drop(old);
    Ok(String::new())
}

fn enable(modules: &Modules) -> Result<String> {
    let mut served = guest(Engine::Rust)?;
    let references = modules.engine.references()?;

    engine::set_enabled(false)?;
    ensure!(!engine::enabled(), "enable is Y after N was written");
    let mut by_c = any_guest()?;
    ensure!(by_c.folder().engine().is_none(), "served by the engine");
    ensure!(
        modules.engine.references()? == references,
        "a VM of C's holds a reference"
    );
    ensure!(served.folder().engine().is_some(), "no longer served");
    works(&mut served)?;
    works(&mut by_c)?;

    engine::set_enabled(true)?;
    ensure!(by_c.folder().engine().is_none(), "served by the engine now");
    let mut again = any_guest()?;
    ensure!(again.folder().engine().is_some(), "not served");
    works(&mut again)?;
    works(&mut by_c)?;
    Ok(String::new())
}

fn vendor_module(modules: &Modules) -> Result<String> {
    for _ in 0..3 {
        unload(&modules.vendor).context("vendor module")?;
        ensure!(modules.engine.is_loaded(), "the engine is gone");
        modules.vendor.load().context("load the vendor module")?;
        works(&mut guest(Engine::Rust)?)?;
        works(&mut guest(Engine::C)?)?;
    }
    // While there is no vendor module, the engine can come and go, too.
    unload(&modules.vendor).context("vendor module")?;
    unload(&modules.engine)?;
    modules.engine.load()?;
    modules.vendor.load().context("load the vendor module")?;
    works(&mut guest(Engine::Rust)?)?;
    Ok(String::new())
}

fn second_engine(modules: &Modules) -> Result<String> {
    // The kernel tells module names apart by byte, but takes '-' for '_' when it
    // decides who may use a symbol.
    let second = modules.engine.renamed("kvm-msr")?;
    let mut attached = guest(Engine::Rust)?;

    for _ in 0..3 {
        match second.load() {
            Err(Errno::EBUSY) => {}
            Err(errno) => bail!("loading a second engine: {errno} instead of EBUSY"),
            Ok(()) => {
                second.unload()?;
                bail!("a second engine was loaded");
            }
        }
    }
    ensure!(!second.is_loaded(), "the second engine is there");
    works(&mut attached)?;
    works(&mut guest(Engine::Rust)?)?;
    drop(attached);

    unload(&modules.engine)?;
    works(&mut guest(Engine::C)?)?;
    // The other one alone is welcome, and then the first is refused.
    second.load().context("load the second engine alone")?;
    let result = modules.engine.load();
    ensure!(result == Err(Errno::EBUSY), "loading the first: {result:?}");
    works(&mut any_guest()?)?;
    unload(&second)?;
    modules.engine.load()?;
    works(&mut guest(Engine::Rust)?)?;
    Ok("refused with EBUSY".to_owned())
}
