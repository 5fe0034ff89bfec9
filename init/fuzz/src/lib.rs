//! What the targets share: judging inputs, and the promises that hold whatever the input.

use kubeboot::settings::{frozen, validate};
use kubeboot::sources::{Bytes, Gathered, parse};

/// Longest message that a person can be expected to read, in characters.
const MESSAGE: usize = 1500;

/// Bytes as a source.
pub fn bytes(data: &[u8]) -> Bytes {
    Bytes::new(data.to_vec())
}

/// Parses, merges and judges. Whatever was found: messages are bounded and can't drive a terminal, and settings that
/// are good are frozen and read back the same.
pub fn judge(gathered: &Gathered) {
    match validate(parse(gathered)) {
        Err(problems) => {
            for problem in &problems {
                readable(&problem.to_string());
                readable(&problem.fix());
            }
        }
        Ok(validated) => {
            validated.warnings.iter().for_each(|warning| readable(&warning.to_string()));
            let frozen = frozen::Frozen::of(&validated);
            assert_eq!(frozen::Frozen::parse(&frozen.text()), Ok(frozen.clone()));
            assert!(frozen::diff(&frozen, &validated.settings, &validated.origins).is_empty());
            for file in &validated.settings.os.network {
                assert!(!file.name.contains('/') && file.name.starts_with("10-kubeboot-"), "{}", file.name);
            }
            for file in &validated.settings.os.write_files {
                assert!(file.path.starts_with("/etc/") && !file.path.contains("/../"), "{}", file.path);
            }
        }
    }
}

/// A message that a terminal can show.
pub fn readable(message: &str) {
    assert!(!message.chars().any(char::is_control), "{message:?}");
    assert!(message.chars().count() < MESSAGE, "{message:?}");
}
