//! Reading the report channel: one JSON object a line, as kubeboot's setting `report` makes it.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::transcript::Transcript;

/// Every event in a transcript of the report channel; lines that are no JSON objects are left out.
#[must_use]
pub fn events(text: &str) -> Vec<Value> {
    // The last line may still be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .filter_map(|line| serde_json::from_str(line.trim()).ok())
        .filter(|value: &Value| value.get("event").is_some_and(Value::is_string))
        .collect()
}

/// The kind of an event.
#[must_use]
pub fn kind(event: &Value) -> &str {
    event.get("event").and_then(Value::as_str).unwrap_or_default()
}

/// Waits for the first event of the kind `wanted`.
///
/// # Errors
/// `limit` passed, the machine stopped, or kubeboot reported an error first, which the message then holds.
pub fn wait_for(report: &Transcript, wanted: &str, limit: Duration) -> Result<Value> {
    let found = report.wait_for(&format!("event {wanted:?} on the report channel"), limit, |text| {
        let events = events(text);
        let first = events.into_iter().find(|event| kind(event) == wanted || kind(event) == "error");
        first.filter(|event| event.is_object())
    })?;
    if kind(&found) != wanted {
        bail!("waited for event {wanted:?} on the report channel: kubeboot reported an error first: {found}");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(text: &'static str) -> (tempfile::TempDir, Transcript) {
        let folder = tempfile::tempdir().unwrap();
        let transcript = Transcript::record(text.as_bytes(), &folder.path().join("report")).unwrap();
        (folder, transcript)
    }

    #[test]
    fn noise_and_an_unfinished_line_are_left_out() {
        let events = events("Core dump limits :\n{\"t\":1,\"event\":\"step\"}\n{\"t\":2}\n{\"t\":3,\"event\":\"re");
        assert_eq!(events.iter().map(kind).collect::<Vec<_>>(), ["step"]);
    }

    #[test]
    fn the_wanted_event_is_found() {
        let (_folder, transcript) = transcript("{\"event\":\"step\"}\n{\"event\":\"ready\",\"node\":\"a\"}\n");
        let event = wait_for(&transcript, "ready", Duration::from_secs(10)).unwrap();
        assert_eq!(event["node"], "a");
    }

    #[test]
    fn an_error_ends_the_wait_and_is_told() {
        let (_folder, transcript) = transcript("{\"event\":\"error\",\"what\":\"swap is on\"}\n");
        let error = wait_for(&transcript, "ready", Duration::from_secs(10)).unwrap_err().to_string();
        assert!(error.contains("swap is on"), "{error}");
    }
}
