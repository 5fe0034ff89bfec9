#![no_main]
//! A token's text.

use kubeboot::token::{Kind, Token};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let again = match Token::parse(text) {
        Ok(Token::Seed(seed)) => seed.text(),
        Ok(Token::Join(token)) => token.text(),
        Err(error) => {
            let message = error.to_string();
            assert!(text.len() < 12 || !message.contains(text), "the message repeats the token");
            return;
        }
    };
    // What is written of it is what was read, up to case, hyphens, and the letters that stand for digits.
    let plain = |text: &str| {
        let (head, tail) = text.trim().split_once('-').expect("a token has a prefix");
        let tail = tail.to_ascii_uppercase().replace('-', "").replace('O', "0").replace(['I', 'L'], "1");
        (head.to_ascii_lowercase(), tail)
    };
    assert_eq!(plain(text), plain(&again));
    assert!(
        Token::parse(&again).is_ok_and(|token| matches!(token.kind(), Kind::Seed | Kind::ControlPlane | Kind::Worker))
    );
});
