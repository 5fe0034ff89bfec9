//! Secrets are taken out of what leaves a machine as text. Nothing of kubeboot's writes one there; what others write, and
//! what people put on a kernel command line, is not known.

/// Bytes of a line that are kept until its end comes; of a longer one each such part is looked at by itself.
const LINE: usize = 64 << 10;
/// What stands in a secret's place.
const GONE: &str = "[redacted]";
/// Words after which a value is a secret, in small letters.
const NAMES: [&str; 9] =
    ["token", "password", "passwd", "secret", "authorization", "bearer", "private-key", "client-key-data", "api-key"];

/// Takes secrets out of a stream of text.
#[derive(Debug, Default)]
pub struct Redactor {
    line: Vec<u8>,
    /// Within the lines of a private key.
    in_key: bool,
}

impl Redactor {
    /// The lines that are complete now.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() > LINE {
                self.flush(&mut out);
            }
        }
        out
    }

    /// The rest.
    pub fn end(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.flush(&mut out);
        out
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let begins = text.contains("-----BEGIN") && text.contains("PRIVATE KEY");
        let ends = text.contains("-----END");
        match (self.in_key || begins, ends) {
            (true, _) if begins || ends => out.extend_from_slice(format!("{GONE}\n").as_bytes()),
            (true, _) => {}
            (false, _) => out.extend_from_slice(redacted(&text).as_bytes()),
        }
        self.in_key = (self.in_key || begins) && !ends;
    }
}

/// A line without secrets: tokens of kubeboot's and JSON web tokens wherever they stand, values after a word that says that
/// they are secret, passwords in URLs.
pub fn redacted(line: &str) -> String {
    let line = without_user_info(line);
    let mut out = String::with_capacity(line.len());
    let mut rest = line.as_str();
    // The word before, which may say that the next is a secret.
    let mut named = false;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()));
        if !word.is_empty() {
            let lower = word.to_ascii_lowercase().replace('_', "-");
            let names = NAMES.iter().any(|name| lower.ends_with(name));
            // "Authorization: Bearer x": the second word names again.
            out += if is_secret(&lower) || (named && !names) { GONE } else { word };
            named = names;
        }
        let (between, next) = after.split_at(after.find(is_of_word).unwrap_or(after.len()));
        named = named && is_assignment(between);
        out += between;
        rest = next;
    }
    out
}

/// The line with nobody named in its URLs (RFC 3986 §3.2.1).
fn without_user_info(line: &str) -> String {
    let mut parts = line.split("://");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let authority = part.split(|c: char| "/?#\"'".contains(c) || c.is_whitespace()).next().unwrap_or_default();
        let shown = authority.rfind('@').map_or(part.to_owned(), |at| format!("{GONE}{}", &part[at..]));
        out += "://";
        out += &shown;
    }
    out
}

/// Between a name and its value: `=`, `: `, `": "`, or a blank.
fn is_assignment(text: &str) -> bool {
    !text.is_empty() && text.len() <= 6 && text.chars().all(|c| "=: \"'\\".contains(c))
}

/// Characters of words and of secrets.
fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || "-_.+/~%".contains(c)
}

/// What is a secret wherever it stands.
fn is_secret(lower: &str) -> bool {
    let token = ["kb1s-", "kb1c-", "kb1w-"].iter().any(|prefix| lower.contains(prefix)) && lower.len() > 16;
    token || (lower.starts_with("eyj") && lower.matches('.').count() == 2)
}
