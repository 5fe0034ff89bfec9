//! Reads sections of a PE program: a unified kernel image is one (UAPI group, "Unified Kernel Image"; Microsoft, "PE
//! Format").

/// The section `name`, without the padding that aligns it in the file. None when the program has no such section or
/// is no PE program.
#[must_use]
pub fn section<'a>(program: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let header = usize::try_from(u32_at(program, 0x3c)?).ok()?;
    if program.get(header..header.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let sections = usize::from(u16_at(program, header + 6)?);
    let optional = usize::from(u16_at(program, header + 20)?);
    let table = header.checked_add(24 + optional)?;
    (0..sections).find_map(|index| {
        let entry = program.get(table + index * 40..table + index * 40 + 40)?;
        if entry[..8].split(|byte| *byte == 0).next()? != name.as_bytes() {
            return None;
        }
        let length = u32_at(entry, 8)?.min(u32_at(entry, 16)?);
        let start = usize::try_from(u32_at(entry, 20)?).ok()?;
        program.get(start..start.checked_add(usize::try_from(length).ok()?)?)
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The least program that has two sections.
    fn program() -> Vec<u8> {
        let mut bytes = vec![0; 0x200];
        bytes[0x3c] = 0x40;
        bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
        bytes[0x46] = 2;
        for (index, (name, content)) in [(".osrel", "ID=x"), (".cmdline", "ro quiet")].into_iter().enumerate() {
            let entry = 0x58 + index * 40;
            let start = 0x100 + index * 0x40;
            bytes[entry..entry + name.len()].copy_from_slice(name.as_bytes());
            bytes[entry + 8] = u8::try_from(content.len()).unwrap();
            bytes[entry + 16] = 0x40;
            bytes[entry + 20..entry + 22].copy_from_slice(&u16::try_from(start).unwrap().to_le_bytes());
            bytes[start..start + content.len()].copy_from_slice(content.as_bytes());
        }
        bytes
    }

    #[test]
    fn a_section_is_found_by_its_name() {
        assert_eq!(section(&program(), ".cmdline"), Some(&b"ro quiet"[..]));
        assert_eq!(section(&program(), ".osrel"), Some(&b"ID=x"[..]));
        assert_eq!(section(&program(), ".linux"), None);
    }

    proptest! {
        #[test]
        fn damaged_programs_never_panic(at in 0usize..0x200, value: u8, length in 0usize..0x200) {
            let mut bytes = program();
            bytes[at] = value;
            bytes.truncate(length);
            let _ = section(&bytes, ".cmdline");
        }
    }
}
