//! Who the machine says it is: machine-id(5) and the firmware's DMI strings.

/// `/etc/machine-id`: 32 lowercase hexadecimal digits, the same at each boot, another on each machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineId(String);

impl MachineId {
    /// Takes the file's text as it is; [`MachineId::problem`] judges it.
    pub fn new(text: &str) -> Self {
        MachineId(text.trim_end_matches('\n').to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Why this is not an id that only one machine has, if so.
    pub fn problem(&self) -> Option<&'static str> {
        match self.0.as_str() {
            "" => Some("is empty"),
            "uninitialized" => Some("is still \"uninitialized\""),
            text if text.len() != 32 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) => {
                Some("is not 32 lowercase hexadecimal digits")
            }
            text if text.bytes().all(|byte| byte == text.as_bytes()[0]) => Some("is one digit over and over"),
            text if firmware_default(text) => Some("comes from a firmware default that many machines share"),
            _ => None,
        }
    }
}

/// DMI (SMBIOS) strings, from `/sys/class/dmi/id`; empty where there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dmi {
    /// `sys_vendor`
    pub vendor: String,
    /// `product_name`
    pub product: String,
    /// `product_uuid`, lowercase.
    pub uuid: String,
}

impl Dmi {
    /// True if the UUID is one that boards ship with unset, so that it tells nothing apart.
    pub fn shared_uuid(&self) -> bool {
        let digits: String = self.uuid.chars().filter(|c| *c != '-').collect();
        !digits.is_empty() && (digits.bytes().all(|byte| byte == digits.as_bytes()[0]) || firmware_default(&digits))
    }
}

/// UUIDs that firmware makers left in place on whole product lines, without dashes.
fn firmware_default(digits: &str) -> bool {
    matches!(
        digits,
        // AMI's template, in both byte orders.
        "03000200040005000006000700080009" | "00020003000400050006000700080009" |
        // "12345678-1234-5678-90AB-CDDEEFAABBCC" and the like.
        "12345678123456789012123456789012" | "123456781234567890abcddeefaabbcc" | "0123456789abcdef0123456789abcdef"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_of_its_own_passes() {
        assert_eq!(MachineId::new("4c4c45440051331080344b4c04563332\n").problem(), None);
        let problem = |text: &str| MachineId::new(text).problem().expect("a bad id");
        assert_eq!(problem("\n"), "is empty");
        assert_eq!(problem("uninitialized\n"), "is still \"uninitialized\"");
        assert!(problem("4C4C45440051331080344b4c04563332").starts_with("is not 32"));
        assert!(problem("4c4c4544-0051-3310-8034-4b4c04563332").starts_with("is not 32"));
        assert_eq!(problem(&"0".repeat(32)), "is one digit over and over");
        assert!(problem("03000200040005000006000700080009").starts_with("comes from a firmware default"));
    }

    #[test]
    fn shared_firmware_uuids_are_known() {
        let shared = |uuid: &str| Dmi { uuid: uuid.into(), ..Dmi::default() }.shared_uuid();
        assert!(shared("03000200-0400-0500-0006-000700080009"));
        assert!(shared("ffffffff-ffff-ffff-ffff-ffffffffffff"));
        assert!(!shared("4c4c4544-0051-3310-8034-4b4c04563332"));
        assert!(!shared(""), "a machine without DMI");
    }
}
