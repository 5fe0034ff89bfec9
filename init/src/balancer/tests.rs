//! Single decisions.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;

const SALT: u64 = 7;

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn server(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 6443))
}

fn ready(milliseconds: u64) -> Finding {
    Finding::Ready { took: Duration::from_millis(milliseconds) }
}

fn unreachable() -> Finding {
    Finding::Unreachable { why: "no answer".into() }
}

fn unwell() -> Finding {
    Finding::Unwell { why: "status 500".into() }
}

/// A balancer with healthy servers 1 to `count` at second 0, best first.
fn healthy(count: u8) -> (Balancer, Vec<SocketAddr>) {
    let mut balancer = Balancer::new(Times::REAL, SALT);
    let all: Vec<SocketAddr> = (1..=count).map(server).collect();
    balancer.listed(at(0.0), &all);
    balancer.act(at(0.0));
    for address in &all {
        balancer.found(at(0.0), *address, ready(2));
    }
    let mut order = Vec::new();
    while let Some(next) = balancer.pick(&order) {
        order.push(next);
    }
    assert_eq!(order.len(), all.len());
    (balancer, order)
}

fn cuts(balancer: &mut Balancer, now: f64) -> Vec<SocketAddr> {
    let actions = balancer.act(at(now));
    actions
        .into_iter()
        .filter_map(|action| if let Action::Cut(address) = action { Some(address) } else { None })
        .collect()
}

#[test]
fn before_the_first_check_every_server_may_be_tried_in_the_own_order() {
    let orders: std::collections::BTreeSet<Vec<SocketAddr>> = (0..50)
        .map(|salt| {
            let mut balancer = Balancer::new(Times::REAL, salt);
            balancer.listed(at(0.0), &[server(1), server(2), server(3)]);
            let first = balancer.pick(&[]).unwrap();
            let second = balancer.pick(&[first]).unwrap();
            let third = balancer.pick(&[first, second]).unwrap();
            assert_eq!(balancer.pick(&[first, second, third]), None);
            vec![first, second, third]
        })
        .collect();
    assert_eq!(orders.len(), 6, "workers spread over the servers");
}

#[test]
fn an_unreachable_server_gets_nothing_new_and_its_connections_are_cut_once_another_has_answered_since() {
    let (mut balancer, order) = healthy(3);
    balancer.opened(order[0]);
    balancer.found(at(3.0), order[0], unreachable());
    assert_eq!(balancer.pick(&[]), Some(order[1]));
    let actions = balancer.act(at(3.0));
    for other in &order[1..] {
        assert!(actions.contains(&Action::Check(*other)), "the others are asked at once: {actions:?}");
    }
    assert!(!actions.contains(&Action::Cut(order[0])));
    balancer.found(at(3.01), order[2], ready(2));
    assert_eq!(cuts(&mut balancer, 3.01), [order[0]]);
    balancer.closed(order[0]);
    assert!(cuts(&mut balancer, 3.02).is_empty());
}

#[test]
fn a_machine_that_lost_its_own_network_cuts_nothing_neither_then_nor_when_it_is_back() {
    let (mut balancer, order) = healthy(2);
    balancer.opened(order[0]);
    balancer.opened(order[1]);
    for (second, address) in [(3.0, order[0]), (3.5, order[1]), (6.0, order[0]), (6.5, order[1])] {
        balancer.found(at(second), address, unreachable());
        assert!(cuts(&mut balancer, second).is_empty());
        assert!(balancer.pick(&[]).is_some(), "all are tried");
    }
    balancer.found(at(9.0), order[1], ready(2));
    assert!(cuts(&mut balancer, 9.0).is_empty(), "the other may be back too");
    balancer.found(at(9.2), order[0], ready(2));
    assert!(cuts(&mut balancer, 9.2).is_empty());
}

#[test]
fn of_two_servers_that_were_gone_the_one_that_stays_away_loses_its_connections() {
    let (mut balancer, order) = healthy(2);
    balancer.opened(order[0]);
    balancer.found(at(3.0), order[0], unreachable());
    balancer.found(at(3.5), order[1], unreachable());
    balancer.found(at(9.0), order[1], ready(2));
    assert!(cuts(&mut balancer, 9.0).is_empty(), "asked again first");
    balancer.found(at(9.5), order[0], unreachable());
    assert_eq!(cuts(&mut balancer, 9.5), [order[0]]);
}

#[test]
fn an_unwell_server_keeps_its_connections_for_a_while() {
    let (mut balancer, order) = healthy(2);
    balancer.opened(order[0]);
    balancer.found(at(1.0), order[0], unwell());
    balancer.found(at(1.1), order[1], ready(2));
    assert_eq!(balancer.pick(&[]), Some(order[1]));
    assert!(cuts(&mut balancer, 10.9).is_empty());
    balancer.found(at(10.9), order[0], unwell());
    balancer.act(at(10.9));
    assert!(balancer.wake(at(10.9)).unwrap() <= at(11.0));
    assert_eq!(cuts(&mut balancer, 11.0), [order[0]]);
}

#[test]
fn a_fallen_server_has_to_answer_twice_and_longer_after_each_fall() {
    let (mut balancer, order) = healthy(2);
    let mut now = 0.0;
    let mut pauses = Vec::new();
    for _ in 0..7 {
        now += 1.0;
        balancer.found(at(now), order[0], unwell());
        let fell = now;
        while balancer.pick(&[]) != Some(order[0]) {
            now += 0.5;
            balancer.found(at(now), order[1], ready(2));
            balancer.found(at(now), order[0], ready(2));
        }
        pauses.push(now - fell);
    }
    assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
}

#[test]
fn the_only_server_is_back_with_its_first_answer() {
    let (mut balancer, order) = healthy(1);
    balancer.found(at(1.0), order[0], unreachable());
    balancer.found(at(1.1), order[0], ready(2));
    assert_eq!(balancer.view().servers[0].health, "healthy");
}

#[test]
fn a_server_whose_connection_failed_comes_last_until_it_has_answered() {
    let (mut balancer, order) = healthy(3);
    balancer.doubt(at(2.0), order[0]);
    assert_eq!(balancer.pick(&[]), Some(order[1]));
    assert!(balancer.act(at(2.0)).contains(&Action::Check(order[0])), "it is asked at once");
    balancer.found(at(2.1), order[0], ready(2));
    assert_eq!(balancer.pick(&[]), Some(order[0]));
}

#[test]
fn a_removed_server_drains_and_is_forgotten() {
    let (mut balancer, order) = healthy(2);
    balancer.opened(order[0]);
    balancer.opened(order[0]);
    balancer.listed(at(10.0), &[order[1]]);
    assert_eq!(balancer.pick(&[]), Some(order[1]));
    assert_eq!(balancer.pick(&[order[1]]), None, "nothing new goes there");
    balancer.closed(order[0]);
    assert!(cuts(&mut balancer, 39.9).is_empty());
    assert!(balancer.view().servers.iter().any(|server| server.draining));
    assert_eq!(cuts(&mut balancer, 40.0), [order[0]]);
    balancer.closed(order[0]);
    assert!(balancer.act(at(40.0)).contains(&Action::Forget(order[0])));
    assert_eq!(balancer.view().servers.len(), 1);
}

#[test]
fn a_server_that_comes_back_into_the_list_is_as_before() {
    let (mut balancer, order) = healthy(2);
    balancer.opened(order[0]);
    balancer.listed(at(1.0), &[order[1]]);
    balancer.listed(at(2.0), &order);
    assert!(cuts(&mut balancer, 60.0).is_empty());
    assert_eq!(balancer.pick(&[]), Some(order[0]));
}

#[test]
fn a_nearer_server_is_preferred() {
    let (mut balancer, order) = healthy(2);
    for second in 1..30 {
        balancer.found(at(f64::from(second)), order[0], ready(40));
        balancer.found(at(f64::from(second)), order[1], ready(3));
    }
    assert_eq!(balancer.pick(&[]), Some(order[1]));
    insta::assert_snapshot!(balancer.view().text(), @r#"{"format":1,"servers":[{"address":"192.0.2.1:6443","health":"healthy","preferred":false,"far":true,"draining":false},{"address":"192.0.2.2:6443","health":"healthy","preferred":true,"far":false,"draining":false}]}"#);
}
