// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tests one MSR on vCPUs of one kind, by user space or by the guest: whether it can be read, and
//! the effect of each bit.

use super::Access;
use super::BitMasks;
use super::pool::Lent;
use super::pool::Pool;
use crate::access::Refusal;
use crate::access::RefusalKind;
use crate::access::forbidden;
use crate::catalogue;
use crate::catalogue::Initiator;
use crate::error::Result;
use crate::number::Hex;
use crate::scratch::Outcome;

/// IA32_TIME_STAMP_COUNTER
const TSC: u32 = 0x10;

/// How often user space reads an MSR to find out whether it changes by itself.
const READS: usize = 4;

/// A vCPU that is as good as new for each bit.
struct Subject<'p, 'a> {
    pool: &'p mut Pool<'a>,
    scratch: Lent,
    index: u32,
    by: Initiator,
    has_run: bool,
    /// Whether a write ever succeeded, after which the vCPU is not reused.
    is_used: bool,
}

impl Subject<'_, '_> {
    fn renew(&mut self) -> Result<()> {
        let fresh = self.pool.fresh(self.has_run)?;

        std::mem::replace(&mut self.scratch, fresh).end();
        self.is_used = false;
        Ok(())
    }

    /// Reads as the initiator under test. If KVM_RUN fails, it is tried again on a new vCPU,
    /// because the cause may be another.
    fn read(&mut self) -> Result<Result<u64, Refusal>> {
        if self.by == Initiator::Host {
            let value = self.scratch.get(self.index)?;

            return Ok(value.ok_or(RefusalKind::Refused.into()));
        }
        let mut outcome = self.scratch.rdmsr(self.index)?;

        if is_dead(&outcome) {
            self.renew()?;
            outcome = self.scratch.rdmsr(self.index)?;
            if is_dead(&outcome) {
                self.renew()?;
            }
        }
        Ok(match outcome {
            Outcome::Value(value) => Ok(value),
            _ => Err(Refusal::of(&outcome).unwrap_or(RefusalKind::Unsaid.into())),
        })
    }

    /// Writes as the initiator under test.
    fn write(&mut self, value: u64) -> Result<Result<(), Refusal>> {
        if self.by == Initiator::Host {
            let taken = self.scratch.set(self.index, value)?;

            self.is_used |= taken;
            return Ok(if taken {
                Ok(())
            } else {
                Err(RefusalKind::Refused.into())
            });
        }
        let mut outcome = self.scratch.wrmsr(self.index, value)?;

        if is_dead(&outcome) {
            self.renew()?;
            outcome = self.scratch.wrmsr(self.index, value)?;
            if is_dead(&outcome) {
                self.renew()?;
            }
        }
        Ok(match Refusal::of(&outcome) {
            None => {
                self.is_used = true;
                Ok(())
            }
            Some(refusal) => Err(refusal),
        })
    }

    /// The current value; user space may be able to read it if the guest can't.
    fn look(&mut self, who: Option<Initiator>) -> Result<Option<u64>> {
        match who {
            None => Ok(None),
            Some(Initiator::Host) => self.scratch.get(self.index),
            Some(Initiator::Guest) => Ok(match self.scratch.rdmsr(self.index)? {
                Outcome::Value(value) => Some(value),
                _ => None,
            }),
        }
    }

    /// Restores the value from before a bit was tried, on this vCPU or on a new one.
    fn restore(&mut self, state: &State, before: u64) -> Result<()> {
        let restored = match (state.kept, state.pace) {
            (None, _) => false,
            (Some(kept), None) => {
                self.scratch.set(self.index, kept)? && self.scratch.get(self.index)? == Some(kept)
            }
            // KVM remembers writes of the TSC, and treats the next one as an attempt to
            // synchronise several vCPUs.
            (Some(_), Some(_)) => self.index != TSC && self.scratch.set(self.index, before)?,
        };

        if restored { Ok(()) } else { self.renew() }
    }
}

fn is_dead(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Dead(_))
}

/// The state of an MSR before it was written.
struct State {
    /// The initiator that can read it.
    reader: Option<Initiator>,
    /// Its value for that initiator.
    seen: Option<u64>,
    /// Its value for user space, to be restored.
    kept: Option<u64>,
    /// Its change between two reads, if it changes by itself.
    pace: Option<u64>,
}

/// Tests an MSR on a vCPU of one kind. If both a read and a write fail and the MSR `is_unknown`,
/// or the guest's exits say so, bits are not tried.
///
/// # Errors
///
/// [`Error::Kvm`](crate::Error::Kvm) if KVM fails, rather than refuses.
pub(super) fn probe(
    pool: &mut Pool<'_>,
    index: u32,
    by: Initiator,
    has_run: bool,
    is_unknown: bool,
) -> Result<Access> {
    let scratch = pool.take(has_run)?;
    let mut subject = Subject {
        pool,
        scratch,
        index,
        by,
        has_run,
        is_used: false,
    };
    let (read, state) = first_look(&mut subject)?;
    let base = state.seen.unwrap_or(0);
    // The guest's write of the current value may hang; a write with one bit inverted may not.
    let own = match forbidden(subject.pool.setup(), index, base) {
        Some(_) if by == Initiator::Guest => None,
        _ => Some(subject.write(base)?),
    };

    if matches!(&own, Some(Ok(()))) {
        subject.restore(&state, base)?;
    }
    let says_so = |refusal: &Refusal| is_unknown || refusal.kind == RefusalKind::Unknown;
    let bits = if matches!(&read, Err(refusal) if says_so(refusal))
        && matches!(&own, Some(Err(refusal)) if says_so(refusal))
    {
        None
    } else {
        Some(each_bit(&mut subject, &state, base)?)
    };
    let takes = bits.is_some_and(|bits| bits.taken() != 0);
    let is_same = subject.is_used
        && state.pace.is_none()
        && state.seen.is_some()
        && subject.look(state.reader)? == state.seen;
    let Subject {
        scratch, is_used, ..
    } = subject;

    if is_used && !is_same {
        scratch.end();
    } else {
        pool.give(scratch, is_used)?;
    }
    Ok(Access {
        readable: read.is_ok(),
        value: read.as_ref().ok().copied().map(Hex),
        moves: state.pace.is_some(),
        writable: takes || matches!(&own, Some(Ok(()))),
        bits,
        read_refused: read.err(),
        write_refused: own.and_then(Result::err),
    })
}

/// Tests an MSR with a vCPU's first instruction: one vCPU for a read, one for a write, and if
/// `each_bit`, one for each bit.
///
/// # Errors
///
/// As [`probe`].
pub(super) fn first_instruction(
    pool: &mut Pool<'_>,
    index: u32,
    pace: Option<u64>,
    each_bit: bool,
) -> Result<Access> {
    let mut scratch = pool.fresh(false)?;
    let outcome = scratch.rdmsr(index)?;

    scratch.end();
    let read = match outcome {
        Outcome::Value(value) => Ok(value),
        _ => Err(Refusal::of(&outcome).unwrap_or(RefusalKind::Unsaid.into())),
    };
    let kept = pool.take(false)?;
    let base = read.as_ref().ok().copied().or(kept.get(index)?);

    pool.give(kept, false)?;
    let pool = &*pool;
    let base = base.unwrap_or(0);
    let reader = Some(match read {
        Ok(_) => Initiator::Guest,
        Err(_) => Initiator::Host,
    });
    let write = |value| -> Result<(Result<(), Refusal>, Option<u64>)> {
        let mut scratch = pool.fresh(false)?;
        let outcome = scratch.wrmsr(index, value)?;
        let after = match (&outcome, reader) {
            (Outcome::Dead(_), _) => None,
            (_, Some(Initiator::Guest)) => match scratch.rdmsr(index)? {
                Outcome::Value(value) => Some(value),
                _ => None,
            },
            _ => scratch.get(index)?,
        };

        scratch.end();
        Ok((Refusal::of(&outcome).map_or(Ok(()), Err), after))
    };
    let is_forbidden = |value| forbidden(pool.setup(), index, value).is_some();
    let own = if is_forbidden(base) {
        None
    } else {
        Some(write(base)?.0)
    };
    let bits = if each_bit {
        let mut bits = BitMasks::default();

        for bit in (0..64).map(|bit| 1u64 << bit) {
            if is_forbidden(base ^ bit) {
                bits.untried.0 |= bit;
                continue;
            }
            let (taken, after) = write(base ^ bit)?;

            bits.note(bit, base, &taken, after, pace);
        }
        Some(bits)
    } else {
        None
    };

    Ok(Access {
        readable: read.is_ok(),
        value: read.as_ref().ok().copied().map(Hex),
        moves: pace.is_some(),
        writable: matches!(&own, Some(Ok(()))) || bits.is_some_and(|bits| bits.taken() != 0),
        bits,
        read_refused: read.err(),
        write_refused: own.and_then(Result::err),
    })
}

fn first_look(subject: &mut Subject<'_, '_>) -> Result<(Result<u64, Refusal>, State)> {
    let read = subject.read()?;
    let kept = subject.scratch.get(subject.index)?;
    let reader = match (&read, kept) {
        (Ok(_), _) => Some(subject.by),
        (Err(_), Some(_)) => Some(Initiator::Host),
        (Err(_), None) => None,
    };
    let seen = read.as_ref().ok().copied().or(kept);
    let mut pace = catalogue::moves(subject.index).then_some(0);
    let mut before = kept;

    // Reads by user space are cheap; the guest's reads may show more.
    for _ in 1..kept.map_or(0, |_| READS) {
        let now = subject.scratch.get(subject.index)?;

        note_pace(&mut pace, before, now);
        before = now;
    }
    if reader == Some(Initiator::Guest) {
        let now = subject.look(reader)?;

        note_pace(&mut pace, seen, now);
        if pace.is_some() {
            let again = subject.look(reader)?;

            note_pace(&mut pace, now, again);
        }
    }
    Ok((
        read,
        State {
            reader,
            seen,
            kept,
            pace,
        },
    ))
}

fn note_pace(pace: &mut Option<u64>, before: Option<u64>, now: Option<u64>) {
    if let (Some(before), Some(now)) = (before, now)
        && before != now
    {
        let step = now.wrapping_sub(before);

        *pace = Some(pace.unwrap_or(0).max(step));
    }
}

fn each_bit(subject: &mut Subject<'_, '_>, state: &State, base: u64) -> Result<BitMasks> {
    let mut bits = BitMasks::default();

    for bit in (0..64).map(|bit| 1u64 << bit) {
        // The current value, if it changes by itself.
        let before = if state.pace.is_some() {
            subject.look(state.reader)?.unwrap_or(base)
        } else {
            base
        };
        let value = before ^ bit;

        if subject.by == Initiator::Guest
            && forbidden(subject.pool.setup(), subject.index, value).is_some()
        {
            bits.untried.0 |= bit;
            continue;
        }
        let taken = subject.write(value)?;
        let after = if taken.is_ok() {
            subject.look(state.reader)?
        } else {
            None
        };

        bits.note(bit, before, &taken, after, state.pace);
        if taken.is_ok() {
            subject.restore(state, before)?;
        }
    }
    Ok(bits)
}
