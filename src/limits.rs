//! AWS's limits on the length of a report, and how a longer report is split or shortened.
//!
//! Each limit leaves room for what surrounds the targets.

use std::collections::BTreeMap;

use serde::Serialize;

/// A line of the log. CloudWatch Logs accepts events of 1 MB (256 KB before April 2025), but Lambda reads the lines
/// from a pipe, which holds 64 KB. Longer lines have been found split into two events, neither of which was valid JSON.
/// <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>
pub const LOG_LINE: usize = 60_000;
/// The answer to an action that only reads: 6 MB.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
pub const ANSWER: usize = 6_000_000;
/// A report in Lambda's record of an asynchronous invocation, which also contains the event, or in the output of a
/// state. A record that is too long for its destination is not delivered, and an output that is too long fails the
/// state. EventBridge and SQS accept 1 MB in most regions, and 256 KB in the others. Step Functions accepts 256 KiB.
/// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html>
/// <https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html>
pub const RECORD: usize = 240_000;
/// The report of a failed batch, which Step Functions turns into the cause of an error: 32,768 characters.
/// <https://docs.aws.amazon.com/step-functions/latest/apireference/API_LambdaFunctionFailedEventDetails.html>
pub const CAUSE: usize = 30_000;

/// How many targets were left out, by their outcome or state.
pub type LeftOut = BTreeMap<String, usize>;

/// Splits a list into parts that fit. Each has at least one entry, unless the list is empty.
pub fn parts<T: Serialize>(entries: &[T], limit: usize) -> Vec<&[T]> {
    let mut used = entries.first().map_or(0, length);
    let fits_too = |_: &T, next: &T| {
        let length = length(next);
        used += length;
        let fits = used <= limit;
        if !fits {
            used = length;
        }
        fits
    };
    let parts: Vec<_> = entries.chunk_by(fits_too).collect();
    if parts.is_empty() { vec![entries] } else { parts }
}

/// Leaves out the entries that don't fit, and counts them by their label. Entries of a lower rank are kept first. The
/// first of them stays even if it is longer than the limit.
pub fn shorten<T: Serialize, L: Serialize>(
    entries: &mut Vec<T>,
    limit: usize,
    rank: impl Fn(&T) -> u8,
    label: impl Fn(&T) -> L,
) -> LeftOut {
    let lengths = entries.iter().map(|entry| (rank(entry), length(entry))).collect();
    let (mut fit, mut left_out) = (which_fit(lengths, limit).into_iter(), LeftOut::new());
    entries.retain(|entry| {
        let fits = fit.next().unwrap_or_default();
        if !fits {
            let label = json(&label(entry)).trim_matches('"').to_owned();
            *left_out.entry(label).or_default() += 1;
        }
        fits
    });
    left_out
}

/// Which entries fit together, given their ranks and lengths.
fn which_fit(lengths: Vec<(u8, usize)>, limit: usize) -> Vec<bool> {
    let (mut used, mut fit) = (0, vec![false; lengths.len()]);
    let mut entries: Vec<_> = lengths.into_iter().zip(&mut fit).collect();
    entries.sort_by_key(|((rank, _), _)| *rank);
    for ((_, length), fits) in entries {
        if used == 0 || used + length <= limit {
            (used, *fits) = (used + length, true);
        }
    }
    fit
}

/// The length of an entry in JSON, with its comma. Quotation marks and backslashes count twice, because the report of
/// a failed run is a string in JSON.
fn length(entry: &impl Serialize) -> usize {
    let json = json(entry);
    json.len() + json.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count() + 1
}

/// JSON can't express a map whose keys aren't strings, but no report contains one.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry that takes this many bytes.
    fn of_length(bytes: usize) -> String {
        // Beside the letters, it has two quotation marks, which count twice, and a comma.
        "x".repeat(bytes - 5)
    }

    fn parts_of(lengths: &[usize], limit: usize) -> Vec<Vec<usize>> {
        let entries: Vec<_> = lengths.iter().map(|bytes| of_length(*bytes)).collect();
        parts(&entries, limit).into_iter().map(|part| part.iter().map(length).collect()).collect()
    }

    #[test]
    fn a_list_is_split_before_the_entry_that_does_not_fit() {
        assert_eq!(parts_of(&[40, 60, 10, 90, 100], 100), [vec![40, 60], vec![10, 90], vec![100]]);
        assert_eq!(parts_of(&[40, 61, 39], 100), [vec![40], vec![61, 39]]);
    }

    #[test]
    fn an_entry_that_is_too_long_is_a_part_of_its_own_and_an_empty_list_is_one_part() {
        assert_eq!(parts_of(&[10, 101, 10], 100), [vec![10], vec![101], vec![10]]);
        assert_eq!(parts_of(&[], 100), [Vec::<usize>::new()]);
    }

    #[test]
    fn entries_of_a_lower_rank_take_the_room_first_and_stay_in_their_order() {
        let fit = |limit| which_fit(vec![(2, 40), (1, 30), (0, 20), (2, 10), (0, 30)], limit);
        assert_eq!(fit(130), [true; 5]);
        assert_eq!(fit(129), [true, true, true, false, true]);
        assert_eq!(fit(119), [false, true, true, true, true]);
        assert_eq!(fit(50), [false, false, true, false, true]);
        let mut entries = vec![of_length(30), of_length(20), of_length(40)];
        let left_out = shorten(&mut entries, 70, |entry| u8::from(entry.len() < 20), |entry| entry.len());
        assert_eq!(entries, [of_length(30), of_length(40)]);
        assert_eq!(left_out, LeftOut::from([("15".to_owned(), 1)]));
    }

    #[test]
    fn nothing_is_left_out_of_a_list_that_fits() {
        let mut entries = vec![of_length(50), of_length(50)];
        assert!(shorten(&mut entries, 100, |_| 0, |_| "x").is_empty());
        assert_eq!(entries.len(), 2);
        assert_eq!(shorten(&mut entries, 99, |_| 0, |_| "x"), LeftOut::from([("x".to_owned(), 1)]));
    }

    #[test]
    fn the_first_entry_of_the_lowest_rank_stays_even_if_it_is_too_long() {
        assert_eq!(which_fit(vec![(1, 10), (0, 200), (0, 10)], 100), [false, true, false]);
    }

    #[test]
    fn the_length_is_that_of_json_within_a_string() {
        let entry = r#"a "b" \"#;
        assert_eq!(length(&entry) - 1, json(&json(&entry)).len() - 2);
    }
}
