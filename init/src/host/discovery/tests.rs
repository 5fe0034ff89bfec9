//! Places for tests: the loopback interface, by multicast where the kernel lets it.

use std::net::UdpSocket;

use super::*;

/// A port that nobody had a moment ago.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// Unicast in the group's place: one machine hears, whatever the kernel thinks of multicast on loopback.
pub fn free_place() -> Place {
    let group = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port());
    Place { ipv4: Some((Ipv4Addr::LOCALHOST, group)), ipv6: None }
}

/// Every way that this kernel has on loopback, at least the stand-in.
pub fn multicast_places() -> Vec<Place> {
    let index = if_nametoindex("lo").expect("a loopback interface");
    let ipv4 = (Ipv4Addr::LOCALHOST, SocketAddrV4::new(GROUP_IPV4, free_port()));
    let multicast = [
        Place { ipv4: Some(ipv4), ipv6: None },
        Place { ipv4: None, ipv6: Some(SocketAddrV6::new(GROUP_IPV6, free_port(), 0, index)) },
    ];
    // Some kernels send to such a group on loopback, and deliver to nobody.
    let works = |place: &Place| {
        let mut asking = Asking::open(place).ok()?;
        let ears = place.ears().ok()?;
        asking.ask(&Key::of(&[0; 16])).ok()?;
        let heard = Watched::new(ears.iter()).ok()?.wait(Duration::from_millis(500)).ok()?;
        (!heard.is_empty()).then_some(())
    };
    let mut places = vec![free_place()];
    for place in multicast {
        if works(&place).is_some() {
            places.push(place);
        } else {
            println!("left out, as this kernel has no such multicast on loopback: {place:?}");
        }
    }
    places
}

#[test]
fn a_machine_without_the_address_says_so() {
    let why = look("192.0.2.123".parse().expect("an address"), &Key::of(&[1; 16]), Duration::from_millis(1));
    assert_eq!(why, Err("no interface has the address 192.0.2.123".to_owned()));
}

#[test]
fn nobody_on_the_network_is_found_in_the_time_that_was_given() {
    let start = clock::monotonic();
    // What was heard at a port where nobody listens, an ICMP error, ends nothing.
    let found = look_at(&free_place(), &Key::of(&[1; 16]), Duration::from_millis(50));
    assert_eq!(found, Ok(Found::default()));
    assert!(clock::monotonic() - start >= Duration::from_millis(50));
}
