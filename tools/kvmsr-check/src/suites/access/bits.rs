// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Finds the effect of each bit of an MSR by plain accesses.

use anyhow::Result;

use super::raw::By;
use super::raw::LEFT;
use super::raw::Raw;

/// What an initiator can do with an MSR, on a vCPU of one kind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Found {
    pub readable: bool,
    pub moves: bool,
    pub writable: bool,
    pub masks: Option<Masks>,
}

/// The effects of the bits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Masks {
    pub sticks: u64,
    pub ignored: u64,
    pub refused: u64,
    /// Accepted, but a read can't show the effect.
    pub unclear: u64,
    pub left: u64,
}

impl Masks {
    /// The effect of one bit.
    pub fn of(&self, bit: u64) -> Self {
        Masks {
            sticks: self.sticks & bit,
            ignored: self.ignored & bit,
            refused: self.refused & bit,
            unclear: self.unclear & bit,
            left: self.left & bit,
        }
    }
}

/// Tests an MSR; with `each_bit`, also each bit.
pub fn find(raw: &mut Raw, by: By, index: u32, each_bit: bool) -> Result<Found> {
    let read = retried(raw, |raw| raw.read(by, index))?;
    let kept = raw.get(index)?;
    let base = read.ok().or(kept);
    let mut moves = false;

    for _ in 0..kept.map_or(0, |_| 3) {
        moves |= raw.get(index)? != kept;
    }
    if by == By::Guest && read.is_ok() {
        moves |= raw.read(by, index)? != read;
    }
    let own = retried(raw, |raw| raw.write(by, index, base.unwrap_or(0)))?;
    let mut found = Found {
        readable: read.is_ok(),
        moves,
        writable: own.is_ok(),
        masks: None,
    };

    if own.is_ok() {
        restore(raw, index, kept, moves)?;
    }
    if each_bit {
        let masks = masks(raw, by, index, (read.is_ok(), base, kept), moves)?;

        found.writable |= masks.sticks | masks.ignored | masks.unclear != 0;
        found.masks = Some(masks);
    }
    Ok(found)
}

fn masks(
    raw: &mut Raw,
    by: By,
    index: u32,
    (readable, base, kept): (bool, Option<u64>, Option<u64>),
    moves: bool,
) -> Result<Masks> {
    let mut masks = Masks::default();

    for number in 0..64 {
        let bit = 1 << number;
        let value = base.unwrap_or(0) ^ bit;

        match retried(raw, |raw| raw.write(by, index, value))? {
            Err(refused) if refused == LEFT => masks.left |= bit,
            Err(_) => masks.refused |= bit,
            Ok(()) => {
                let after = if readable {
                    raw.read(by, index)?.ok()
                } else {
                    raw.get(index)?
                };

                match after {
                    None => masks.unclear |= bit,
                    Some(after) if after & bit == value & bit => masks.sticks |= bit,
                    Some(_) => masks.ignored |= bit,
                }
                // The plain guest's tables are at these addresses.
                if matches!(number, 12 | 13) && by == By::Guest && !raw.is_sound()? {
                    raw.renew()?;
                } else {
                    restore(raw, index, kept, moves)?;
                }
            }
        }
    }
    Ok(masks)
}

/// A failure of KVM_RUN must occur twice: the first one may have another cause.
fn retried<T>(
    raw: &mut Raw,
    mut access: impl FnMut(&mut Raw) -> Result<Result<T, &'static str>>,
) -> Result<Result<T, &'static str>> {
    let first = access(raw)?;

    match first {
        Err(LEFT) => access(raw),
        _ => Ok(first),
    }
}

fn restore(raw: &mut Raw, index: u32, kept: Option<u64>, moves: bool) -> Result<()> {
    if let Some(kept) = kept
        && !moves
        && raw.set(index, kept)?
        && raw.get(index)? == Some(kept)
    {
        return Ok(());
    }
    raw.renew()
}
