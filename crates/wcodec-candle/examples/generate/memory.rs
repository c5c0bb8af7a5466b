//! What the process takes, as Linux tells it.

/// Bytes resident now, and at most so far; `None` where there is no `/proc`.
pub(crate) fn resident() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}
