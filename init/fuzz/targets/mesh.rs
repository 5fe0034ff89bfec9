#![no_main]
//! What the mesh reads from others: packets, hellos, announcements, records, lists of operators, messages of a push-pull. The first byte
//! chooses. What is read is written again as it was, for there is one encoding of each; and nobody without the keys gets
//! anything taken.

use std::net::SocketAddr;

use kubeboot::mesh::packet::{Body, Hello};
use kubeboot::mesh::sync::{MAX_MESSAGE, Message};
use kubeboot::mesh::{Action, Announcement, Authority, Event, Mesh, MeshKey, Node, NodeId, Record, Roll, Setup, StreamId};

fn mesh() -> Mesh {
    let address = SocketAddr::from(([10, 0, 0, 1], 7440));
    let setup = Setup {
        cluster: [1; 16],
        node: Node { key: [2; 32], address, control_plane: false, name: "node".into() },
        generation: 1,
        seed: [3; 32],
        key: MeshKey::new(1, zeroize::Zeroizing::new([4; 32])),
        sign: Box::new(|_| [0; 64]),
        verifier: Box::new(Authority { cluster: [1; 16], identity: [5; 32] }),
        records: Vec::new(),
    };
    Mesh::new(1, setup).expect("a name that fits")
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    match choice % 8 {
        0 => {
            if let Ok(body) = Body::parse(data) {
                assert_eq!(body.bytes(), data);
            }
        }
        1 => {
            if let Ok(hello) = Hello::parse(data) {
                assert!(data.starts_with(&hello.bytes()));
            }
        }
        2 => {
            if let Ok(announcement) = Announcement::parse(data) {
                assert_eq!(announcement.bytes(), data);
            }
        }
        3 => {
            if let Ok(record) = Record::parse(data) {
                assert_eq!(record.bytes(), data);
                assert!(record.verify(&record.cluster, &[5; 32]).is_err(), "a record that nobody signed");
            }
        }
        4 => {
            if let Ok(message) = Message::parse(data) {
                assert_eq!(message.bytes().as_slice(), data);
            }
        }
        7 => {
            if let Ok(roll) = Roll::parse(data) {
                assert_eq!(roll.bytes(), data);
            }
        }
        5 => {
            let mut mesh = mesh();
            let from = SocketAddr::from(([10, 0, 0, 2], 7440));
            mesh.handle(2, Event::Packet { from, bytes: data });
            assert_eq!((mesh.counts().accepted, mesh.members().known()), (0, 1), "a packet that no member sealed");
        }
        _ => {
            let mut mesh = mesh();
            let stream = StreamId(1);
            mesh.handle(2, Event::Accepted { stream, peer: NodeId([6; 16]) });
            let mut rest = data;
            // Several messages: each behind its length.
            while let Some(([a, b], more)) = rest.split_first_chunk() {
                let (message, after) = more.split_at(more.len().min(usize::from(u16::from_be_bytes([*a, *b]))));
                for action in mesh.handle(3, Event::Message { stream, bytes: message }) {
                    if let Action::Transmit { bytes, .. } = action {
                        assert!(bytes.len() <= MAX_MESSAGE);
                    }
                }
                rest = after;
            }
            assert_eq!((mesh.members().known(), mesh.records().len()), (1, 0), "what nobody signed is taken");
        }
    }
});
