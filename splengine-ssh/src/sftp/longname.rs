//! A file as `ls -l` has it: what people are shown by clients that do not look further.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use splengine_core::files::{FileInfo, FileKind};

/// Pure; times are in UTC.
pub(crate) fn long_name(name: &OsStr, info: &FileInfo, now: SystemTime) -> Vec<u8> {
    let FileInfo { links, uid, gid, size, modified, .. } = info;
    let (mode, date) = (mode(info), date(*modified, now));
    let mut line = format!("{mode} {links:>4} {uid:<8} {gid:<8} {size:>8} {date} ").into_bytes();
    line.extend_from_slice(name.as_bytes());
    line
}

fn mode(info: &FileInfo) -> String {
    let kind = match info.kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Link => 'l',
        _ => '?',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = info.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, info.mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
        });
    }
    text
}

/// With the time of day if it is of the last half a year, else with the year.
fn date(time: SystemTime, now: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (year, month, day) = civil(since / 86_400);
    let month = MONTHS[month];
    let is_recent = time <= now && now.duration_since(time).is_ok_and(|age| age < HALF_A_YEAR);
    if is_recent {
        let (hour, minute) = (since / 3600 % 24, since / 60 % 60);
        format!("{month} {day:>2} {hour:02}:{minute:02}")
    } else {
        format!("{month} {day:>2}  {year}")
    }
}

/// The year, month (from 0) and day of the month that lie so many days after 1970 began: Howard
/// Hinnant's `civil_from_days`, whose years begin with March.
fn civil(days: u64) -> (u64, usize, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let is_next_year = month >= 10;
    let month = (month + 2) % 12;
    (year + era * 400 + u64::from(is_next_year), usize::try_from(month).unwrap_or(0), day)
}

const HALF_A_YEAR: Duration = Duration::from_hours(24 * 182);
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates_are_as_ls_has_them() {
        for (seconds, now, date_of_it) in [
            (0, 0, "Jan  1 00:00"),
            (951_782_399, 951_782_400, "Feb 28 23:59"),
            (951_782_400, 951_782_401, "Feb 29 00:00"),
            (951_868_800, 2_000_000_000, "Mar  1  2000"),
            (1_735_689_599, 1_735_689_600, "Dec 31 23:59"),
            (1_735_689_600, 1_735_689_599, "Jan  1  2025"),
            (4_107_542_400, 0, "Mar  1  2100"),
        ] {
            assert_eq!(date(at(seconds), at(now)), date_of_it, "{seconds}");
        }
    }
}
