//! The answer to a request, whole or as a stream of what comes.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame};
use tokio::sync::mpsc;

use super::app::App;
use super::clients::Ask;
use super::engine::{Handle, Refused};
use super::event::{Ended, Event, Reason};
use super::format::{Delta, Format, Parts, Splitter, Wanted};
use super::phase::{Phase, Reached, reached};
use super::prepare::{Preparation, Prompt, Source, internal};
use super::problem::{Names, Problem};
use super::reply;
use crate::grammar::{Form, Trouble};
use crate::sampling;
use crate::token_rules::TokenRules;
use armlet::generation::SubmitError;

/// The longest answer that streams, in tokens, where eight contexts are less: one that nothing ends would have a slot for ever.
const LONGEST: usize = 1 << 16;

/// The most tokens of an answer behind a prompt of `n`. Who asks for more than there is room for gets it where the oldest tokens
/// are evicted; a whole answer is in memory until it is sent.
fn room(n: usize, most: usize, is_bound: bool, stream: bool) -> usize {
    match stream {
        _ if is_bound => most - n,
        true => LONGEST.max(8 * most),
        // The last one is not read any more.
        false => most - n + 1,
    }
}

/// Answers a request.
pub(super) async fn answer(
    app: &Arc<App>,
    mut wanted: Wanted,
    mut format: Box<dyn Format>,
) -> Result<Response, Problem> {
    if *app.phase.borrow() != Phase::Running {
        return Err(Problem::unavailable("The server is about to end."));
    }
    let bound_by = bound_by(wanted.tools.is_some(), wanted.form.as_ref(), wanted.names);
    wanted.form = wanted.form.or_else(|| app.form.clone());
    let stream = wanted.stream;
    let (most, logs) = (app.sizes.context, app.limits.log_prompts);
    let names = wanted.names;
    let (ask, parts) = app.prepare.run(move |preparation| ask(preparation, wanted, most, logs)).await?;
    format.settled(&ask, &parts);
    let mut answering = Answering {
        events: app.engine.submit(ask).await.map_err(|why| refusal(app, why, names))?,
        engine: app.engine.clone(),
        cut: reached(&app.phase, Phase::Cut),
        splitter: Splitter::new(parts),
        bound_by,
        said: logs.then(String::new),
    };
    if stream {
        let (first, kind) = (format.begin(), format.stream_type());
        let body = Body::new(Stream { answering, format, first: Some(first), ended: false });
        return Ok(([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], body).into_response());
    }
    let (whole, ended) = answering.whole().await?;
    Ok(reply::ok(&format.whole(whole, &ended)))
}

/// What the engine is asked for, with a context of `most` tokens; and of what parts the answer is.
pub(super) fn ask(
    preparation: &mut Preparation<'_>,
    wanted: Wanted,
    most: usize,
    logs: bool,
) -> Result<(Ask, Parts), Problem> {
    let Wanted { names, source, sampling, context, scores, stream, form, split, tools } = wanted;
    let is_chat = matches!(source, Source::Chat(..));
    let most = context.map_or(most, |context| context.min(most));
    let Prompt { tokens: prompt, thinking } = preparation.prompt(source, tools.as_ref(), names)?;
    let n = prompt.len();
    if n == 0 {
        return Err(Problem::invalid("The prompt is empty.").of(names.prompt).code("invalid_prompt"));
    }
    if n >= most {
        return Err(too_long(n, most).of(names.prompt));
    }
    if logs {
        let text: Vec<u8> = prompt.iter().flat_map(|token| preparation.tokenizer.piece(*token, true)).collect();
        log::info!("prompt: {}", String::from_utf8_lossy(&text));
    }
    let room = room(n, most, context.is_some(), stream);
    let (constraint, calls) = match &tools {
        Some(tools) => {
            let (constraint, calls) = preparation.calls(tools, form, thinking, names)?;
            (Some(constraint), Some(calls))
        }
        None => (form.map(|form| preparation.constraint(&form, names)).transpose()?, None),
    };
    let ask = Ask {
        sampling: sampling::settings(&sampling, preparation.file, is_chat).map_err(internal)?,
        rules: TokenRules::new(&sampling, preparation.tokenizer).map_err(internal)?,
        shown: if split || calls.is_some() { preparation.marks(calls.is_some()) } else { Vec::new() },
        constraint,
        prompt,
        tokens: sampling.n_predict.unwrap_or(most - n).min(room),
        scores,
    };
    // A thought has no calls, whether it is told from the answer or not.
    let tags = (split || calls.is_some()).then(|| preparation.tags());
    Ok((ask, Parts { tags, thinking, together: !split, calls }))
}

/// What is said to a request that did not get to the engine.
fn refusal(app: &App, why: Refused, names: Names) -> Problem {
    match why {
        Refused::Scheduler(SubmitError::QueueFull) => Problem::full(app.metrics.retry_after(app.sizes.slots)),
        Refused::Scheduler(SubmitError::TooLong { tokens, most }) => too_long(tokens, most).of(names.prompt),
        Refused::Scheduler(e @ SubmitError::UnknownToken(_)) => Problem::invalid(format!("Invalid 'prompt': {e}.")),
        Refused::Scheduler(e) => Problem::internal(e.to_string()),
        Refused::Busy => Problem::unavailable("Too many requests at once; try again later."),
        Refused::Gone => Problem::unavailable("The server is about to end."),
    }
}

/// The fields of a request whose forms its answer keeps to, and the code of what is wrong with them; none where the form is the
/// server's own, or there is none.
fn bound_by(has_tools: bool, form: Option<&Form>, names: Names) -> Option<(String, &'static str)> {
    let form = form.map(|form| if matches!(form, Form::Gbnf(_)) { "grammar" } else { names.form });
    match (has_tools, form) {
        (true, None) => Some(("tools".into(), "invalid_function_parameters")),
        // Which of them it is cannot be told.
        (true, Some(form)) => Some((format!("tools or {form}"), "invalid_value")),
        (false, form) => form.map(|form| (form.into(), "invalid_value")),
    }
}

/// Why an answer that had begun does not go on.
fn broken(bound_by: Option<&(String, &'static str)>, trouble: &Trouble) -> Problem {
    match (trouble, bound_by) {
        (Trouble::Form(why), Some((field, code))) => {
            let message = format!("Invalid schema for {field}: {why}, to which the answer has come.");
            Problem::invalid(message).of(field).code(code)
        }
        _ => Problem::internal(trouble.to_string()),
    }
}

fn too_long(tokens: usize, most: usize) -> Problem {
    let message = format!(
        "This server's context holds {most} tokens with at least one of the answer. Your prompt has {tokens} tokens: shorten it."
    );
    Problem::invalid(message).code("context_length_exceeded")
}

/// An answer that comes. To drop it cancels it.
struct Answering {
    events: mpsc::Receiver<Event>,
    engine: Handle,
    cut: Reached,
    splitter: Splitter,
    bound_by: Option<(String, &'static str)>,
    /// All of it so far, for the log.
    said: Option<String>,
}

/// What came.
enum Came {
    Delta(Delta),
    /// With what was held back.
    End(Delta, Ended),
    Failed(Problem),
}

impl Answering {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Came> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Came::Failed(Problem::unavailable("The server ends, and with it this answer.")));
        }
        let event = ready!(self.events.poll_recv(cx));
        self.engine.taken();
        Poll::Ready(match event {
            Some(Event::Piece(piece)) => {
                if let Some(said) = &mut self.said {
                    *said += &piece.text;
                }
                let delta = self.splitter.take(&piece.text, piece.tokens);
                Came::Delta(Delta { scores: piece.scored.into_iter().collect(), ..delta })
            }
            Some(Event::End(mut ended)) => {
                if let Some(said) = &self.said {
                    log::info!("answer: {said}");
                }
                let last = self.splitter.finish();
                ended.thoughts = self.splitter.thoughts();
                if self.splitter.has_called() && ended.reason == Reason::Stop {
                    ended.reason = Reason::Calls;
                }
                Came::End(last, ended)
            }
            Some(Event::Failed(why)) => Came::Failed(broken(self.bound_by.as_ref(), &why)),
            None => Came::Failed(Problem::unavailable("The answer was given up.")),
        })
    }

    /// All of it.
    async fn whole(&mut self) -> Result<(Delta, Ended), Problem> {
        let mut whole = Delta::default();
        loop {
            let (delta, ended) = match poll_fn(|cx| self.poll(cx)).await {
                Came::Delta(delta) => (delta, None),
                Came::End(delta, ended) => (delta, Some(ended)),
                Came::Failed(problem) => return Err(problem),
            };
            whole.add(delta);
            if let Some(ended) = ended {
                return Ok((whole, ended));
            }
        }
    }
}

/// The body of a stream.
struct Stream {
    answering: Answering,
    format: Box<dyn Format>,
    first: Option<String>,
    ended: bool,
}

impl Stream {
    fn text(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(first);
        }
        let mut piece = |delta: Delta| if delta.is_empty() { String::new() } else { self.format.piece(delta) };
        Poll::Ready(match ready!(self.answering.poll(cx)) {
            Came::Delta(delta) => piece(delta),
            Came::End(delta, ended) => {
                self.ended = true;
                piece(delta) + &self.format.end(&ended)
            }
            Came::Failed(problem) => {
                self.ended = true;
                self.format.failed(&problem)
            }
        })
    }
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let stream = self.get_mut();
        while !stream.ended || stream.first.is_some() {
            let text = ready!(stream.text(cx));
            if !text.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(text.into()))));
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an answer comes to is said of the fields that it is bound by, as it would have been before it began.
    #[test]
    fn limits_that_an_answer_comes_to_name_their_fields() {
        let names = Names { prompt: "messages", form: "response_format", parameters: "function.parameters" };
        let form = Form::Schema(true.into());
        let broken = |has_tools: bool, form: Option<&Form>, trouble: Trouble| {
            broken(bound_by(has_tools, form, names).as_ref(), &trouble).openai()["error"].clone()
        };
        for (has_tools, form, param, code) in [
            (true, None, "tools", "invalid_function_parameters"),
            (true, Some(&form), "tools or response_format", "invalid_value"),
            (false, Some(&form), "response_format", "invalid_value"),
            (false, Some(&Form::Gbnf(String::new())), "grammar", "invalid_value"),
        ] {
            let error = broken(has_tools, form, Trouble::Form("it is wide".into()));
            assert_eq!((&error["param"], &error["code"]), (&param.into(), &code.into()), "{error}");
            assert_eq!(broken(has_tools, form, Trouble::Failed("no".into()))["type"], "server_error");
        }
        assert_eq!(broken(false, None, Trouble::Form("it is wide".into()))["type"], "server_error");
    }
}
