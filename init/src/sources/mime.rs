//! MIME multi-parts (RFC 2046), as cloud-init's `make-mime` writes them.

use mail_parser::{MessageParser, MimeHeaders as _, PartType};
use zeroize::Zeroizing;

use super::{Bytes, LIMIT};

/// Most parts of a message.
const PARTS: usize = 64;

/// The leaves of a multi-part: content type in lower case, and decoded bytes. Fails with what was found instead.
pub fn parts(bytes: &[u8]) -> Result<Vec<(String, Bytes)>, String> {
    if bytes.len() > LIMIT {
        return Err(format!("{} bytes", bytes.len()));
    }
    // A parser that knows no headers but MIME's: no dates, no addresses.
    let message = MessageParser::new().with_mime_headers().parse(bytes).ok_or("a MIME message that can't be read")?;
    if message.parts.len() > PARTS {
        return Err(format!("a MIME message of {} parts, more than {PARTS}", message.parts.len()));
    }
    let mut out = Vec::new();
    let mut total = 0;
    for part in &message.parts {
        let body: &[u8] = match &part.body {
            PartType::Text(text) | PartType::Html(text) => text.as_bytes(),
            PartType::Binary(bytes) | PartType::InlineBinary(bytes) => bytes,
            PartType::Message(_) => return Err("a message within a MIME message".to_owned()),
            PartType::Multipart(_) => continue,
        };
        if part.is_encoding_problem {
            return Err(format!("MIME part {} whose transfer encoding is broken", out.len() + 1));
        }
        total += body.len();
        if total > LIMIT {
            return Err(format!("a MIME message that decodes to more than {LIMIT} bytes"));
        }
        out.push((content_type(part), Zeroizing::new(body.to_vec())));
    }
    if out.is_empty() {
        return Err("a MIME message without parts".to_owned());
    }
    Ok(out)
}

fn content_type(part: &mail_parser::MessagePart<'_>) -> String {
    let Some(kind) = part.content_type() else { return "text/plain".to_owned() };
    let name = format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default());
    name.chars().filter(|c| c.is_ascii_graphic()).take(60).collect::<String>().to_ascii_lowercase()
}
