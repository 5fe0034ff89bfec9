use super::*;
use proptest::prelude::*;

fn parse_error(text: &str) -> TokenError {
    match Token::parse(text) {
        Ok(_) => panic!("{text} was accepted"),
        Err(error) => error,
    }
}

/// What later releases must still derive from a seed of today.
#[test]
fn a_known_seed_gives_known_texts_and_keys() {
    let seed = Seed::new(*b"kubeboot is fine");
    let worker = seed.join_token(Joiner::Worker);
    let control_plane = seed.join_token(Joiner::ControlPlane);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let all = [
        format!("seed {}", seed.text().as_str()),
        format!("founding key {}", hex(&seed.founding_key().public())),
        format!("fingerprint {}", hex(worker.fingerprint())),
        format!("worker {}", worker.text().as_str()),
        format!("worker key {}", hex(&worker.join_key().public())),
        format!("control plane {}", control_plane.text().as_str()),
        format!("control plane key {}", hex(&control_plane.join_key().public())),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_token_is_read_as_people_write_it() {
    let seed = Seed::new([0; SECRET]);
    let text = seed.text();
    let sloppy = format!("  {}\n", text.to_lowercase().replace('0', "o").replace('1', "l").replace("kbl", "kb1"));
    assert!(Token::parse(&sloppy).is_ok_and(|token| token.kind() == Kind::Seed));
    let (head, tail) = text.split_at(5);
    assert!(Token::parse(&format!("{head}{}", tail.replace('-', ""))).is_ok());
}

#[test]
fn what_is_no_token_is_said_to_be_none() {
    assert_eq!(parse_error(""), TokenError::NotAToken);
    assert_eq!(parse_error("abcdef.0123456789abcdef"), TokenError::NotAToken);
    assert_eq!(parse_error("kb1x-00000"), TokenError::NotAToken);
    assert_eq!(parse_error("kb2s-00000"), TokenError::Version(2));
    assert_eq!(parse_error("kb1s-00000"), TokenError::Length { expected: 30, found: 5 });
    assert_eq!(parse_error("kb1s-0000U"), TokenError::Character { group: 1, place: 5 });
    assert_eq!(parse_error(&format!("kb1s-{}", "0".repeat(100_000))), TokenError::NotAToken);
}

#[test]
fn messages_say_where_to_look_and_repeat_nothing() {
    let text = Seed::new(*b"kubeboot is fine").text();
    let mut wrong = text.as_bytes().to_vec();
    wrong[12] = if wrong[12] == b'X' { b'Y' } else { b'X' };
    let wrong = String::from_utf8(wrong).expect("ASCII");
    let messages = [
        parse_error(&wrong).to_string(),
        parse_error(&text.replace("kb1s", "kb1w")).to_string(),
        parse_error(&text[..text.len() - 1]).to_string(),
        parse_error("password").to_string(),
        parse_error("kb7s-1").to_string(),
        parse_error("kb1s-1234*").to_string(),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

fn any_token() -> impl Strategy<Value = (String, usize)> {
    (any::<[u8; SECRET]>(), 0usize..3).prop_map(|(random, kind)| {
        let seed = Seed::new(random);
        let text = match kind {
            0 => seed.text(),
            1 => seed.join_token(Joiner::Worker).text(),
            _ => seed.join_token(Joiner::ControlPlane).text(),
        };
        (text.as_str().to_owned(), 5)
    })
}

/// Group and place of the character at `at` in the text.
fn spot(at: usize) -> (usize, usize) {
    ((at - 5) / 6 + 1, (at - 5) % 6 + 1)
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(random: [u8; SECRET]) {
        let seed = Seed::new(random);
        let Ok(Token::Seed(read)) = Token::parse(&seed.text()) else { panic!("not a seed") };
        prop_assert_eq!(read.0, random);
        for joiner in [Joiner::ControlPlane, Joiner::Worker] {
            let token = seed.join_token(joiner);
            let Ok(Token::Join(read)) = Token::parse(&token.text()) else { panic!("not a join token") };
            prop_assert_eq!(read.joiner(), joiner);
            prop_assert_eq!(read.join_key().public(), token.join_key().public());
            prop_assert_eq!(read.fingerprint(), &fingerprint(&seed.founding_key().public()));
        }
    }

    #[test]
    fn every_single_substitution_is_located((text, start) in any_token(), at in 0usize..200, to in 0usize..32) {
        let mut bytes = text.clone().into_bytes();
        let at = start + at % (bytes.len() - start);
        let to = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[to];
        prop_assume!(bytes[at] != b'-' && bytes[at] != to);
        bytes[at] = to;
        let (group, place) = spot(at);
        let error = parse_error(std::str::from_utf8(&bytes).expect("ASCII"));
        prop_assert_eq!(error, TokenError::Checksum(Some(Typo::Character { group, place })));
    }

    #[test]
    fn every_adjacent_transposition_is_noticed((text, start) in any_token(), at in 0usize..200) {
        let characters: Vec<usize> = (start..text.len()).filter(|at| text.as_bytes()[*at] != b'-').collect();
        let pair = &characters[at % (characters.len() - 1)..][..2];
        let mut bytes = text.clone().into_bytes();
        prop_assume!(bytes[pair[0]] != bytes[pair[1]]);
        bytes.swap(pair[0], pair[1]);
        let error = parse_error(std::str::from_utf8(&bytes).expect("ASCII"));
        // Across the border of two blocks it is one wrong character in each; the first is named.
        let noticed = matches!(error, TokenError::Checksum(Some(Typo::Swapped { .. } | Typo::Character { .. })));
        prop_assert!(noticed, "{error}");
    }

    #[test]
    fn a_changed_kind_is_noticed((text, _) in any_token(), to in 0usize..3) {
        let letter = ["s", "c", "w"][to];
        let changed = format!("kb1{letter}{}", &text[4..]);
        prop_assume!(changed != text);
        prop_assert!(Token::parse(&changed).is_err());
    }

    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = Token::parse(&text);
        let _ = Token::parse(&format!("kb1s-{text}"));
    }
}
