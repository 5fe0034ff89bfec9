use std::io::Cursor;

use proptest::prelude::*;

use super::*;

/// A member as GNU tar and POSIX ustar write it.
fn member_of(kind: u8, name: &str, contents: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{:011o}", contents.len()).as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    summed(&mut block);
    block.extend(contents);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn summed(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u64 = block[..512].iter().map(|byte| u64::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn member(name: &str, contents: &[u8]) -> Vec<u8> {
    member_of(b'0', name, contents)
}

fn read_all(parts: &[Vec<u8>]) -> Result<Contents, Refused> {
    read(Cursor::new([parts.concat(), vec![0; 1024]].concat()))
}

const VERSION: &[u8] = br#"{"imageLayoutVersion": "1.0.0"}"#;

fn layout() -> Vec<u8> {
    member("oci-layout", VERSION)
}

fn index(name: &str) -> Vec<u8> {
    let text = format!(
        r#"{{"manifests": [{{"digest": "sha256:aa", "annotations": {{"io.containerd.image.name": "{name}"}}}}]}}"#
    );
    member("index.json", text.as_bytes())
}

fn docker(tag: &str) -> Vec<u8> {
    member("manifest.json", format!(r#"[{{"Config": "c.json", "RepoTags": ["{tag}"], "Layers": []}}]"#).as_bytes())
}

fn names(contents: &[Image]) -> Vec<Option<&str>> {
    contents.iter().map(|image| image.name.as_deref()).collect()
}

#[test]
fn names_and_digests_come_from_the_index_wherever_it_stands() {
    let text = br#"{"manifests": [
        {"digest": "sha256:aa", "annotations": {"io.containerd.image.name": "kubeboot.local/pause:1"}},
        {"digest": "sha256:bb", "annotations": {"org.opencontainers.image.ref.name": "latest"}},
        {"digest": "sha256:cc", "annotations": {"org.opencontainers.image.ref.name": "a.example/b:1"}},
        {"digest": "sha256:dd", "annotations": null}]}"#;
    let pax = member_of(b'x', "PaxHeaders/x", b"30 mtime=1350244992.023960108\n");
    let all = [member_of(b'5', "./", b""), pax, member("./index.json", text), member("blobs/a", b"x"), layout()];
    let image = |name: Option<&str>, digest: &str| Image {
        name: name.map(ToOwned::to_owned),
        digest: Some(format!("sha256:{digest}")),
    };
    assert_eq!(
        read_all(&all).unwrap().images,
        [
            image(Some("kubeboot.local/pause:1"), "aa"),
            image(None, "bb"),
            image(Some("a.example/b:1"), "cc"),
            image(None, "dd")
        ]
    );
}

#[test]
fn dockers_form_is_read_and_beside_oci_it_counts_for_nothing_but_its_names() {
    let old = read_all(&[member_of(b'2', "a/layer.tar", b""), docker("app:1")]).unwrap();
    assert_eq!((names(&old.images), old.images[0].digest.as_deref()), (vec![Some("app:1")], None));
    let untagged = read_all(&[member("manifest.json", br#"[{"Config": "c", "RepoTags": null}]"#)]).unwrap();
    assert_eq!(names(&untagged.images), [None]);
    let both = read_all(&[docker("kubeboot.local/pause:1"), layout(), index("a.example/b:1")]).unwrap();
    assert_eq!(
        (names(&both.images), names(&both.others)),
        (vec![Some("a.example/b:1")], vec![Some("kubeboot.local/pause:1")])
    );
}

/// Each of these was, or could be, an archive that is judged by one name and imported under another.
#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let (good, bad) = (index("a.example/b:1"), index("kubeboot.local/pause:1"));
    let renamed = |name: &str| member(name, &bad[512..]);
    let mut gnu_prefix = renamed("x");
    gnu_prefix[257..265].copy_from_slice(b"ustar  \0");
    gnu_prefix[345] = b'a';
    summed(&mut gnu_prefix);
    let mut base256 = renamed("x");
    base256[124] = 0x80;
    summed(&mut base256);
    let pax = |record: &str| [layout(), good.clone(), member_of(b'x', "p", record.as_bytes()), renamed("x")].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a second index", [layout(), good.clone(), bad.clone()].concat()),
        ("a second index by another path", [layout(), good.clone(), renamed("./index.json")].concat()),
        ("an index behind a climb", [layout(), good.clone(), renamed("a/../index.json")].concat()),
        ("no layout, and Docker's form", [good.clone(), docker("kubeboot.local/pause:1")].concat()),
        ("no layout", good.clone()),
        ("no version", [member("oci-layout", b"{}"), good.clone(), docker("kubeboot.local/pause:1")].concat()),
        ("a second layout", [layout(), member("oci-layout", b"{}"), good.clone()].concat()),
        ("two spellings", [layout(), member("index.json", br#"{"manifests": [], "MANIFESTS": []}"#)].concat()),
        ("another name by pax", pax("19 path=index.json\n")),
        ("another size by pax", pax("9 size=0\n")),
        ("a sparse file", [layout(), good.clone(), member_of(b'S', "x", b"")].concat()),
        ("a long name", [layout(), good.clone(), member_of(b'L', "x", b"index.json\0"), renamed("y")].concat()),
        ("a link with contents", [layout(), good.clone(), member_of(b'2', "x", &bad)].concat()),
        ("a link as the index", [layout(), member_of(b'2', "index.json", b"")].concat()),
        ("a folder's name", [layout(), good.clone(), renamed("index.json/")].concat()),
        ("GNU's times as a prefix", [layout(), good.clone(), gnu_prefix].concat()),
        ("a length in base 256", [layout(), good.clone(), base256].concat()),
        ("a hole", [layout(), good.clone(), vec![0; 512], bad.clone()].concat()),
        ("a compressed stream's beginning", [member("\u{1f}", b""), layout(), good.clone()].concat()),
    ];
    for (what, archive) in cases {
        assert!(read(Cursor::new(archive)).is_err(), "{what}");
    }
    assert!(read(Cursor::new([layout(), good.clone()].concat())).is_ok(), "an end without empty blocks is an end");
}

#[test]
fn an_archive_of_something_else_is_named() {
    let said = |parts: &[Vec<u8>]| read_all(parts).unwrap_err().to_string();
    assert_eq!(
        said(&[member("README", b"x")]),
        "expected an archive of images (OCI's or Docker's), found neither index.json nor manifest.json in it"
    );
    assert!(said(&[b"<html>".repeat(100)]).contains("checksum"));
    assert!(said(&[layout(), member("index.json", b"{}")]).starts_with("index.json: it has no list"));
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let _ = read(Cursor::new(bytes));
    }

    /// However members are ordered and named, what is read is what the one index says, or nothing.
    #[test]
    fn no_order_or_number_of_members_changes_what_is_read(picks in prop::collection::vec(0usize..7, 1..8)) {
        let (good, bad) = (index("a.example/b:1"), index("kubeboot.local/pause:1"));
        let parts = [
            layout(), good, bad.clone(), member("./index.json", &bad[512..]), docker("kubeboot.local/pause:1"),
            member("blobs/sha256/index.json", &bad[512..]), member_of(b'5', "blobs/", b""),
        ];
        let chosen: Vec<Vec<u8>> = picks.iter().map(|pick| parts[*pick].clone()).collect();
        let count = |wanted: &[usize]| picks.iter().filter(|pick| wanted.contains(pick)).count();
        if let Ok(contents) = read_all(&chosen) {
            prop_assert!(count(&[0]) <= 1 && count(&[1, 2, 3]) <= 1 && count(&[4]) <= 1);
            let own = count(&[2, 3]) + count(&[4]) > 0;
            let told = [names(&contents.images), names(&contents.others)].concat();
            prop_assert_eq!(told.contains(&Some("kubeboot.local/pause:1")), own);
        }
    }

    #[test]
    fn no_changed_header_is_believed(bit in 0usize..(3 * 512 * 8)) {
        let mut archive = [layout(), index("a.example/b:1")].concat();
        let headers = [0, 1024];
        let (which, bit) = ((bit / 4096) % 2, bit % 4096);
        archive[headers[which] + bit / 8] ^= 1 << (bit % 8);
        let good = Image { name: Some("a.example/b:1".to_owned()), digest: Some("sha256:aa".to_owned()) };
        if let Ok(contents) = read(Cursor::new(archive)) {
            prop_assert_eq!(contents.images, vec![good]);
        }
    }
}
