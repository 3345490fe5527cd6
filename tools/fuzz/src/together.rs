// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Steps on all vCPUs at the same time.

use std::thread;

use anyhow::Result;
use anyhow::anyhow;
use kvm_msr_guest::Watchdog;

use crate::cpu::Cpu;
use crate::history::Action;
use crate::seen::Seen;

/// Makes a list of actions on each vCPU, in threads of their own.
pub fn run<'a>(cpus: impl Iterator<Item = Cpu<'a>>, lists: &[Vec<Action>]) -> Result<Seen> {
    thread::scope(|scope| {
        let threads: Vec<_> = cpus
            .zip(lists)
            .map(|(cpu, list)| {
                let longest = cpu.watchdog.longest();
                let (fd, memory, progress) = (cpu.fd, cpu.memory, cpu.progress);

                scope.spawn(move || -> Result<Vec<Seen>> {
                    let watchdog = Watchdog::new(longest)?;
                    let mut cpu = Cpu {
                        fd,
                        memory,
                        progress,
                        watchdog: &watchdog,
                    };

                    list.iter().map(|action| cpu.act(action)).collect()
                })
            })
            .collect();

        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect::<Result<_>>()
            .map(Seen::Together)
    })
}
