// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Loading and unloading the engine, with and without VMs.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::engine;

use super::setup::IN_USE;
use super::setup::Modules;
use super::setup::any_guest;
use super::setup::guest;
use super::setup::unload;
use super::setup::works;

/// Loads and unloads the engine many times.
pub fn load_and_unload(modules: &Modules) -> Result<String> {
    let module = &modules.engine;

    unload(module)?;
    for i in 0..modules.loads {
        let at = || format!("round {i}");

        module.load().with_context(at)?;
        ensure!(module.load() == Err(Errno::EEXIST), "loaded twice");
        // Every tenth time, also use it.
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

/// The engine can't be unloaded while a VM is attached.
pub fn in_use(modules: &Modules) -> Result<String> {
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

    // A second file descriptor keeps the VM, though the first and the vCPU's are closed.
    let vm = first.vm_fd()?;
    drop(first);
    let result = module.unload();
    ensure!(result == Err(IN_USE), "unloading with one VM: {result:?}");
    works(&mut any_guest()?)?;
    drop(vm);
    unload(module)?;
    Ok("refused as in use (EWOULDBLOCK), then done".to_owned())
}

/// A VM that was created before the engine was loaded stays with C.
pub fn before_load(modules: &Modules) -> Result<String> {
    unload(&modules.engine)?;
    let mut old = guest(Engine::C)?;
    works(&mut old)?;
    modules.engine.load()?;

    ensure!(old.folder().engine().is_none(), "the engine serves it now");
    works(&mut old)?;
    let mut new = guest(Engine::Rust)?;
    works(&mut new)?;
    works(&mut old)?;
    ensure!(old.folder().engine().is_none(), "the engine serves it now");

    // C's VM must not keep the engine loaded, and must survive its unloading.
    drop(new);
    unload(&modules.engine)?;
    works(&mut old)?;
    modules.engine.load()?;
    works(&mut old)?;
    drop(old);
    Ok(String::new())
}

/// The parameter `enable` affects new VMs only.
pub fn enable(modules: &Modules) -> Result<String> {
    let mut served = guest(Engine::Rust)?;
    let references = modules.engine.references()?;

    engine::set_enabled(false)?;
    ensure!(!engine::enabled(), "enable is Y after N was written");
    let mut by_c = any_guest()?;
    ensure!(by_c.folder().engine().is_none(), "served by the engine");
    ensure!(
        modules.engine.references()? == references,
        "C's VM holds a reference"
    );
    ensure!(
        served.folder().engine().is_some(),
        "the engine no longer serves it"
    );
    works(&mut served)?;
    works(&mut by_c)?;

    engine::set_enabled(true)?;
    ensure!(by_c.folder().engine().is_none(), "served by the engine now");
    let mut again = any_guest()?;
    ensure!(
        again.folder().engine().is_some(),
        "the engine does not serve it"
    );
    works(&mut again)?;
    works(&mut by_c)?;
    Ok(String::new())
}

/// The vendor module can be unloaded and loaded while the engine is loaded.
pub fn vendor_module(modules: &Modules) -> Result<String> {
    for _ in 0..3 {
        unload(&modules.vendor).context("vendor module")?;
        ensure!(modules.engine.is_loaded(), "the engine is gone");
        modules.vendor.load().context("load the vendor module")?;
        works(&mut guest(Engine::Rust)?)?;
        works(&mut guest(Engine::C)?)?;
    }
    // The engine can be unloaded and loaded without a vendor module.
    unload(&modules.vendor).context("vendor module")?;
    unload(&modules.engine)?;
    modules.engine.load()?;
    modules.vendor.load().context("load the vendor module")?;
    works(&mut guest(Engine::Rust)?)?;
    Ok(String::new())
}

/// A second engine can't be loaded.
pub fn second_engine(modules: &Modules) -> Result<String> {
    // For the module loader this name differs from kvm_msr, but when it checks which module may
    // use a symbol, it treats '-' as '_'.
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
    ensure!(!second.is_loaded(), "the second engine is loaded");
    works(&mut attached)?;
    works(&mut guest(Engine::Rust)?)?;
    drop(attached);

    unload(&modules.engine)?;
    works(&mut guest(Engine::C)?)?;
    // If the second engine is loaded first, the first is refused.
    second.load().context("load the second engine alone")?;
    let result = modules.engine.load();
    ensure!(result == Err(Errno::EBUSY), "loading the first: {result:?}");
    works(&mut any_guest()?)?;
    unload(&second)?;
    modules.engine.load()?;
    works(&mut guest(Engine::Rust)?)?;
    Ok("refused with EBUSY".to_owned())
}
