//! Which file paths an archive may hold.

use std::cmp::Ordering;

/// Checks that `path` stays inside the folder that it is unpacked to, on every system: relative, `/` between its parts,
/// no part empty, `.` or `..`, no NUL, no backslash, no drive letter, at most 4096 bytes.
///
/// # Errors
/// The reason, in words.
///
/// ```
/// use wcodec_container::validate_path;
/// assert!(validate_path("shards/model-00001.safetensors").is_ok());
/// assert!(validate_path("../model.safetensors").is_err());
/// ```
pub fn validate_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        Err("path is empty")
    } else if path.len() > 4096 {
        Err("path is longer than 4096 bytes")
    } else if path.starts_with('/') {
        Err("path is absolute")
    } else if path.contains(['\0', '\\']) {
        Err("path contains NUL or a backslash")
    } else if path.as_bytes().get(1) == Some(&b':') && path.as_bytes()[0].is_ascii_alphabetic() {
        Err("path starts with a drive letter")
    } else if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        Err("path has an empty part, `.` or `..`")
    } else {
        Ok(())
    }
}

/// Finds two paths that cannot both be unpacked: equal ones, or one that is a folder of the other.
pub(super) fn find_conflict(mut paths: Vec<&str>) -> Option<(&str, &str)> {
    // In the order of their parts, everything below a folder comes directly behind it, so neighbours suffice.
    paths.sort_unstable_by(|a, b| compare_parts(a, b));
    paths.windows(2).find(|pair| is_within(pair[1], pair[0])).map(|pair| (pair[0], pair[1]))
}

fn compare_parts(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}

fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
