// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Lifetimes of the engine's module, of VMs and of their memory.

mod beside;
mod loading;
mod memory;
mod nested;
mod race;
mod setup;

use anyhow::Result;

use self::setup::Modules;
use crate::Arguments;
use crate::report::Report;
use crate::suites::faults;

type Test = fn(&Modules) -> Result<String>;

const TESTS: &[(&str, Test)] = &[
    ("load and unload repeatedly", loading::load_and_unload),
    ("in use while a VM is attached", loading::in_use),
    ("VM from before the load stays with C", loading::before_load),
    ("enable decides for new VMs only", loading::enable),
    (
        "vendor module changes under the engine",
        loading::vendor_module,
    ),
    ("loaded and unloaded beside VMs of C", beside::vms_of_c),
    (
        "vendor module, engine and kvm.ko in each order",
        beside::orders,
    ),
    ("second engine is refused", loading::second_engine),
    ("VMs race with enable", race::vms_race),
    ("VMs race with loading", race::loads_race),
    ("vCPUs race with filters", race::filters_race),
    (
        "save and restore nested state repeatedly",
        nested::save_and_restore,
    ),
];

/// Runs the suite's tests that the arguments select.
pub fn run(arguments: &Arguments, report: &mut Report) {
    let modules = match Modules::read(arguments) {
        Ok(modules) => modules,
        Err(error) => {
            report.test("lifetimes: modules".to_owned(), || Err(error));
            return;
        }
    };

    // Only the kernels for debugging can make these fail.
    let memory: Option<&(&str, Test)> =
        faults::possible().then_some(&("allocations and copies fail", memory::faults));

    for (name, test) in TESTS.iter().chain(memory) {
        let name = format!("lifetimes: {name}");

        if name.contains(&arguments.test) {
            report.test(name, || {
                let remark = test(&modules);
                // The next test expects the engine to be loaded, even if this one failed.
                let restored = setup::loaded(&modules.engine);

                restored.and(remark)
            });
        }
    }
}
