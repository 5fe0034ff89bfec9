//! The operators as the mesh's records carry them, for nodes that can't ask the cluster: keys that are listed, and digests of
//! those that were removed. Ssh public keys are no secret.

use std::collections::BTreeSet;

use aws_lc_rs::digest;

use super::record::MAX_RECORD_BODY;
use super::wire::{Malformed, Reader, put_bytes};
use crate::operators::objects::OperatorObject;

/// The form that this version writes and reads.
const FORM: u8 = 1;
/// Bytes of a key (ssh wire form) at most.
const KEY: usize = 512;
/// Keys that are listed at most.
const LISTED: usize = 128;
/// Removed keys that are named at most, the last ones. Who was removed before has been left out of every control plane's
/// settings' record for so many removals: such a record lasts 7 days.
const REMOVED: usize = 256;
/// Bytes of a removed key's digest.
const DIGEST: usize = 32;

/// What one record says of operators. In order, and none twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roll {
    /// Keys of operators, ssh wire form.
    pub listed: BTreeSet<Vec<u8>>,
    /// SHA-256 of the keys of who was removed.
    pub removed: BTreeSet<[u8; DIGEST]>,
}

fn digest_of(key: &[u8]) -> [u8; DIGEST] {
    digest::digest(&digest::SHA256, key).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Bytes that a key takes.
fn room(key: &[u8]) -> usize {
    2 + key.len()
}

impl Roll {
    /// What the cluster has on record: the same at whichever control plane looks. What does not fit is left out: of who was
    /// removed the first, of who is listed the last.
    pub fn on_record(objects: &[OperatorObject]) -> Self {
        let mut by_time: Vec<&OperatorObject> = objects.iter().collect();
        by_time.sort_by_key(|object| (object.since, object.line.key.clone()));
        let removed = by_time.iter().rev().filter(|object| !object.listed).take(REMOVED);
        let removed = removed.map(|object| digest_of(&object.line.key)).collect();
        let listed = by_time.iter().filter(|object| object.listed).map(|object| object.line.key.clone());
        Roll { listed: BTreeSet::new(), removed }.filled(listed)
    }

    /// What the settings of one control plane name, beside those of whom the other record says something. What does not fit is
    /// left out, the last.
    pub fn of_settings(keys: impl IntoIterator<Item = Vec<u8>>, objects: &[OperatorObject]) -> Self {
        let said = Roll::on_record(objects).listed;
        let removed = |key: &Vec<u8>| objects.iter().any(|object| !object.listed && object.line.key == *key);
        Roll::default().filled(keys.into_iter().filter(|key| !said.contains(key) && !removed(key)))
    }

    fn filled(mut self, keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut left = MAX_RECORD_BODY - 1 - 2 - 2 - self.removed.len() * DIGEST;
        for key in keys.into_iter().filter(|key| key.len() <= KEY) {
            if self.listed.len() >= LISTED || room(&key) > left {
                break;
            }
            if !self.listed.contains(&key) {
                left -= room(&key);
                self.listed.insert(key);
            }
        }
        self
    }

    /// Whether it says of nobody anything.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.removed.is_empty()
    }

    /// Whether this key's owner was removed.
    pub fn has_removed(&self, key: &[u8]) -> bool {
        self.removed.contains(&digest_of(key))
    }

    /// Whether this key is an operator's.
    pub fn admits(&self, key: &[u8]) -> bool {
        self.listed.contains(key) && !self.has_removed(key)
    }

    /// A record's body.
    pub fn bytes(&self) -> Vec<u8> {
        let count = |number: usize| u16::try_from(number).expect("bounded").to_be_bytes();
        let mut out = vec![FORM];
        out.extend_from_slice(&count(self.listed.len()));
        self.listed.iter().for_each(|key| put_bytes(&mut out, key));
        out.extend_from_slice(&count(self.removed.len()));
        self.removed.iter().for_each(|digest| out.extend_from_slice(digest));
        out
    }

    /// Reads a record's body.
    ///
    /// # Errors
    /// The first field that is not as it should be.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(body);
        if from.byte("form")? != FORM {
            return Err(Malformed("form"));
        }
        let mut roll = Roll::default();
        for _ in 0..count("count of operators", LISTED, &mut from)? {
            let key = from.bytes("operator's key", KEY)?.to_vec();
            if roll.listed.last().is_some_and(|last| *last >= key) {
                return Err(Malformed("order of operators"));
            }
            roll.listed.insert(key);
        }
        for _ in 0..count("count of removed operators", REMOVED, &mut from)? {
            let digest = from.array("removed operator")?;
            if roll.removed.last().is_some_and(|last| *last >= digest) {
                return Err(Malformed("order of removed operators"));
            }
            roll.removed.insert(digest);
        }
        from.end()?;
        Ok(roll)
    }
}

fn count(field: &'static str, most: usize, from: &mut Reader<'_>) -> Result<usize, Malformed> {
    let found = usize::from(u16::from_be_bytes(from.array(field)?));
    if found > most { Err(Malformed(field)) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::key::OperatorLine;
    use crate::operators::tests::public_line;

    fn object(number: u8, listed: bool) -> OperatorObject {
        let line = OperatorLine::parse(&public_line(number, "somebody")).unwrap();
        OperatorObject { line, listed, by: "ada".into(), since: u64::from(number), version: None }
    }

    fn key(number: u8) -> Vec<u8> {
        object(number, true).line.key
    }

    #[test]
    fn a_roll_reads_back_and_has_one_encoding() {
        let objects = [object(3, true), object(1, true), object(2, false)];
        let roll = Roll::on_record(&objects);
        assert_eq!(Roll::parse(&roll.bytes()).as_ref(), Ok(&roll));
        assert!(roll.admits(&key(1)) && roll.admits(&key(3)) && !roll.admits(&key(2)) && !roll.admits(&key(4)));
        assert!(roll.has_removed(&key(2)) && !roll.is_empty());
        let mut turned = objects;
        turned.reverse();
        assert_eq!(Roll::on_record(&turned), roll, "in whatever order they were looked up");
        let bytes = roll.bytes();
        for length in 0..bytes.len() {
            assert!(Roll::parse(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Roll::parse(&[&bytes[..], &[0]].concat()).is_err());
        assert_eq!(Roll::parse(&Roll::default().bytes()), Ok(Roll::default()));
        let twice = [&[FORM, 0, 2][..], &[0, 1, 9], &[0, 1, 9], &[0, 0]].concat();
        assert_eq!(Roll::parse(&twice), Err(Malformed("order of operators")));
        assert_eq!(Roll::parse(&[FORM, 0, 129]), Err(Malformed("count of operators")));
    }

    #[test]
    fn settings_name_nobody_who_is_on_record() {
        let objects = [object(1, true), object(2, false)];
        let roll = Roll::of_settings([1, 2, 3, 3].map(key), &objects);
        assert_eq!(roll.listed, BTreeSet::from([key(3)]));
        assert!(roll.removed.is_empty());
    }

    #[test]
    fn who_is_on_record_and_did_not_fit_is_said_by_the_settings_that_name_him() {
        let many: Vec<OperatorObject> = (0..=255).map(|number| object(number, true)).collect();
        let missing =
            (0..=255).map(key).find(|key| !Roll::on_record(&many).listed.contains(key)).expect("one too many");
        assert_eq!(Roll::of_settings([missing.clone()], &many).listed, BTreeSet::from([missing]));
    }

    #[test]
    fn a_roll_fits_in_a_record_whatever_there_is() {
        let removed = (0..=255).map(|number| object(number, false));
        let many: Vec<OperatorObject> = removed.chain((0..=255).map(|number| object(number, true))).collect();
        let roll = Roll::on_record(&many);
        assert_eq!((roll.listed.len(), roll.removed.len()), (LISTED, REMOVED));
        assert!(roll.bytes().len() <= MAX_RECORD_BODY, "{}", roll.bytes().len());
        let long = Roll::of_settings((0..200_u8).map(|number| vec![number; KEY]), &[]);
        assert!(long.bytes().len() <= MAX_RECORD_BODY && long.listed.len() == 31);
        assert_eq!(Roll::parse(&long.bytes()), Ok(long));
        assert!(Roll::of_settings([vec![0; KEY + 1]], &[]).is_empty());
    }
}
