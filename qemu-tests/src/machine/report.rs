//! Waiting for events on the report channel.

use std::time::Duration;

use anyhow::{Result, bail};
use kubeboot::timeline::{self, Event, What};

use crate::transcript::Transcript;

/// Every whole event in a transcript of the report channel; other lines are left out.
#[must_use]
pub fn events(text: &str) -> Vec<Event> {
    // The last line may still be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    timeline::parse(whole).0
}

/// Waits until `find` finds an event.
///
/// # Errors
/// `limit` passed, the machine stopped, or kubeboot reported an error first, which the message then holds.
pub fn wait_for<T>(report: &Transcript, what: &str, limit: Duration, find: impl Fn(&What) -> Option<T>) -> Result<T> {
    let found = report.wait_for(&format!("{what} on the report channel"), limit, |text| {
        events(text).iter().find_map(|event| match &event.what {
            What::Error { command, message } => match find(&event.what) {
                Some(found) => Some(Ok(found)),
                None => Some(Err(format!("{command}: {message}"))),
            },
            what => find(what).map(Ok),
        })
    })?;
    match found {
        Ok(found) => Ok(found),
        Err(error) => bail!("waited for {what} on the report channel: kubeboot reported an error first: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = r#"{"t":9.0,"event":"phase","name":"api-ready"}"#;

    fn transcript(text: &str) -> (tempfile::TempDir, Transcript) {
        let folder = tempfile::tempdir().unwrap();
        let text = std::io::Cursor::new(text.as_bytes().to_vec());
        let transcript = Transcript::record(text, &folder.path().join("report")).unwrap();
        (folder, transcript)
    }

    fn phase(what: &What) -> Option<String> {
        if let What::Phase { name } = what { Some(name.clone()) } else { None }
    }

    #[test]
    fn noise_and_an_unfinished_line_are_left_out() {
        assert_eq!(events(&format!("Core dump limits :\n{READY}\n{{\"t\":2}}\n{}", &READY[..9])).len(), 1);
    }

    #[test]
    fn the_wanted_event_is_found() {
        let (_folder, transcript) = transcript(&format!("{READY}\n"));
        assert_eq!(wait_for(&transcript, "a phase", Duration::from_secs(10), phase).unwrap(), "api-ready");
    }

    #[test]
    fn an_error_ends_the_wait_and_is_told() {
        let (_folder, transcript) =
            transcript("{\"t\":1.0,\"event\":\"error\",\"command\":\"boot\",\"message\":\"swap is on\"}\n");
        let error = wait_for(&transcript, "a phase", Duration::from_secs(10), phase).unwrap_err().to_string();
        assert!(error.contains("boot: swap is on"), "{error}");
    }
}
