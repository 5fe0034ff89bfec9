//! One operator's connection, from where the exchange of enrolment ends: one request, and its answer.

use std::time::{Duration, Instant};

use super::answers::{Answers, Caller};
use super::output::{Halt, Sink};
use crate::exit::Exit;
use crate::host::clock;
use crate::host::enrolment::channel::{Broken, Channel, Times};
use crate::operators::frame::{Frame, Trouble, most};
use crate::operators::{SESSION, exchange};

/// How long the other side has to send its request, and to take each part of the answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The times of an operator's connection.
fn times() -> Times {
    Times { patience: PATIENCE, whole: SESSION }
}

/// Serves an operator who was admitted. `from` is where the connection comes from; `log` hears of the request and of what
/// became of it.
pub fn serve(channel: &mut Channel, desk: &dyn Answers, who: &Caller, from: std::net::IpAddr, log: &dyn Fn(&str)) {
    channel.prolong(times());
    let request = match channel.receive(most::REQUEST) {
        Ok(bytes) => exchange::asked(&bytes),
        Err(Broken::Long(malformed)) => Err(Trouble::new(
            Exit::BadInput,
            "The node can't read the request",
            malformed,
            "use the kubeboot of its release.",
        )),
        Err(why) => return log(&format!("operator {} at {from} asked for nothing: {why}", who.name)),
    };
    let request = match request {
        Ok(request) => request,
        Err(trouble) => {
            log(&format!("operator {} at {from} was refused: {}", who.name, trouble.block().line()));
            return send(channel, &Frame::Failed(trouble));
        }
    };
    let begun = Instant::now();
    channel.prolong(Times { patience: PATIENCE, whole: request.session() });
    let mut out = Out { channel, desk, who, gone: false };
    let done = match desk.enter() {
        Some(_place) => desk.answer(who, &request, clock::unix(), &mut out),
        None => Err(Halt::Trouble(Trouble::new(
            Exit::Failure,
            request.refused(),
            "the node works on as many requests as it takes at once",
            "try again in a moment, or ask another node.",
        ))),
    };
    let became = match &done {
        Ok(0) => "done".to_owned(),
        Ok(code) => format!("ended with {code}"),
        Err(Halt::Trouble(trouble)) => format!("not done: {}", trouble.block().line()),
        Err(Halt::Gone) => "ended: nobody waits for it any more".to_owned(),
    };
    log(&format!("operator {} at {from}: {request}: {became} ({:.1} s)", who.name, begun.elapsed().as_secs_f64()));
    match done {
        Ok(code) => send(channel, &Frame::Done(code)),
        Err(Halt::Trouble(trouble)) => send(channel, &Frame::Failed(trouble)),
        Err(Halt::Gone) => {}
    }
}

fn send(channel: &mut Channel, frame: &Frame) {
    if let Ok(bytes) = frame.encode() {
        // Who does not take it is gone, and there is nothing more to say.
        let _ = channel.send(&bytes);
    }
}

/// The answer's way to the operator.
struct Out<'a> {
    channel: &'a mut Channel,
    desk: &'a dyn Answers,
    who: &'a Caller,
    gone: bool,
}

impl Out<'_> {
    fn frame(&mut self, frame: &Frame) -> Result<(), Halt> {
        let sent = frame.encode().map_err(|_| ()).and_then(|bytes| self.channel.send(&bytes).map_err(|_| ()));
        self.gone |= sent.is_err();
        if self.gone { Err(Halt::Gone) } else { Ok(()) }
    }
}

impl Sink for Out<'_> {
    fn part(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        exchange::parts(bytes).try_for_each(|frame| self.frame(&frame))
    }

    /// Whoever was removed meanwhile hears nothing more.
    fn goes_on(&mut self) -> Result<(), Halt> {
        self.desk.still(self.who)?;
        self.frame(&Frame::Data(Vec::new()))
    }
}
