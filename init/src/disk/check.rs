//! Checking the file system of `/var` before it is mounted: e2fsck's flags and its verdict.

/// e2fsck's flags as the kernel command line asks (`fsck.mode=`, `fsck.repair=`; systemd-fsck@.service(8)); none when
/// there is to be no check. By default it repairs what needs no decision, and looks further only at a file system that
/// was not left in order.
pub fn flags(command_line: &str) -> Option<Vec<&'static str>> {
    let (mut mode, mut repair) = ("auto", "preen");
    for word in command_line.split_whitespace() {
        match word.split_once('=') {
            Some(("fsck.mode", value)) => mode = value,
            Some(("fsck.repair", value)) => repair = value,
            _ => {}
        }
    }
    let repair = match repair {
        "yes" => "-y",
        "no" => "-n",
        _ => "-p",
    };
    match mode {
        "skip" => None,
        "force" => Some(vec![repair, "-f"]),
        _ => Some(vec![repair]),
    }
}

/// What a check that does not stop a boot brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// The file system is in order now.
    InOrder,
    /// It could not be checked, and why: mounting it shows whether it can be used.
    Not(String),
}

/// e2fsck(8), "EXIT CODE": errors were left.
const LEFT: i32 = 4;
/// It could not do its work (8), was called wrongly (16), was cancelled (32), or lacks a library (128).
const FAILED: i32 = 8 | 16 | 32 | 128;

/// Judges e2fsck's exit code (none when a signal ended it) with what it said.
///
/// # Errors
/// Errors are left: what e2fsck said of them.
pub fn checked(code: Option<i32>, said: &str) -> Result<Checked, String> {
    match code {
        Some(code) if code & LEFT != 0 => Err(last(said)),
        Some(code) if code & FAILED != 0 => Ok(Checked::Not(last(said))),
        Some(_) => Ok(Checked::InOrder),
        None => Ok(Checked::Not("it was killed".to_owned())),
    }
}

/// Its last lines: they name what it stopped at.
fn last(said: &str) -> String {
    const LINES: usize = 3;
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match &lines[lines.len().saturating_sub(LINES)..] {
        [] => "it said nothing".to_owned(),
        lines => lines.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_command_line_decides_how_thorough_the_check_is() {
        for (line, expected) in [
            ("", Some("-p")),
            ("quiet fsck.repair=preen fsck.mode=auto", Some("-p")),
            ("fsck.mode=force", Some("-p -f")),
            ("fsck.repair=yes fsck.mode=force", Some("-y -f")),
            ("fsck.repair=no fsck.repair=yes", Some("-y")),
            ("fsck.repair=no", Some("-n")),
            ("fsck.mode=skip fsck.repair=yes", None),
            ("xfsck.mode=skip fsck.mode", Some("-p")),
        ] {
            assert_eq!(flags(line).map(|flags| flags.join(" ")).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn only_errors_that_are_left_stop_a_boot() {
        let said = "one\n\n two\n/dev/vda6: Resize inode not valid.\n/dev/vda6: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.\n";
        let last = "two; /dev/vda6: Resize inode not valid.; /dev/vda6: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.";
        for code in [0, 1, 2, 3] {
            assert_eq!(checked(Some(code), said), Ok(Checked::InOrder), "{code}");
        }
        for code in [4, 5, 12] {
            assert_eq!(checked(Some(code), said), Err(last.to_owned()), "{code}");
        }
        for code in [8, 9, 16, 32, 128] {
            assert_eq!(checked(Some(code), ""), Ok(Checked::Not("it said nothing".to_owned())), "{code}");
        }
        assert!(matches!(checked(None, said), Ok(Checked::Not(_))));
    }
}
