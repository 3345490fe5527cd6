// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Among solutions with the same number of windows, finds one with fewer bits.

use crate::filter::Flags;
use crate::filter::Run;
use crate::filter::Segment;
use crate::filter::Window;
use crate::filter::layout::Layout;

/// Changes the kinds of windows if that needs fewer bits: the search for the minimum number of
/// windows takes the first solution. Sorts the windows by their start.
pub(super) fn shorten(windows: &mut [Window], segments: &[Segment]) {
    windows.sort_by_key(|window| window.run);
    let mut rest = windows;

    while let Some(first) = rest.first() {
        // Windows that overlap, so that their kinds depend on each other.
        let mut last = first.run.last;
        let begin = first.run.first;
        let count = rest
            .iter()
            .take_while(|window| {
                let is_one_of_them = window.run.first <= last;

                if is_one_of_them {
                    last = last.max(window.run.last);
                }
                is_one_of_them
            })
            .count();
        let (group, others) = std::mem::take(&mut rest).split_at_mut(count);
        let after = segments.partition_point(|segment| segment.run.first <= last);
        let before = segments.partition_point(|segment| segment.run.last < begin);

        // A segment that continues in the next group needs windows of both.
        if let Some(segments) = segments.get(before..after) {
            let segments: Vec<Segment> = segments
                .iter()
                .filter_map(|segment| {
                    let run = segment.run.cut(Run { first: begin, last })?;

                    Some(Segment { run, ..*segment })
                })
                .collect();

            shorten_group(group, &segments);
        }
        rest = others;
    }
}

fn shorten_group(windows: &mut [Window], segments: &[Segment]) {
    let Some(mut least) = bits(windows, segments) else {
        return;
    };

    loop {
        let before = least;

        for number in 0..windows.len() {
            for flags in [Flags::READ, Flags::WRITE, Flags::BOTH] {
                let Some(window) = windows.get_mut(number) else {
                    continue;
                };
                let old = std::mem::replace(&mut window.flags, flags);

                match bits(windows, segments) {
                    Some(bits) if bits < least => least = bits,
                    _ => {
                        if let Some(window) = windows.get_mut(number) {
                            window.flags = old;
                        }
                    }
                }
            }
        }
        if least == before {
            return;
        }
    }
}

/// The number of bits that windows need; none if they are not enough, or those of one kind
/// overlap.
fn bits(windows: &[Window], segments: &[Segment]) -> Option<u64> {
    let overlap = windows.iter().enumerate().any(|(number, one)| {
        windows
            .iter()
            .skip(number + 1)
            .any(|other| one.flags == other.flags && one.run.cut(other.run).is_some())
    });

    if overlap {
        return None;
    }
    let needs = Layout::new(windows).needs(segments)?;

    Some(
        needs
            .iter()
            .filter_map(|need| need.hull)
            .map(|hull| hull.count())
            .sum(),
    )
}
