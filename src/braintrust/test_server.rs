//! An HTTP server on loopback for the tests of the calls.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use reqwest::{Client, Url};
use secrecy::SecretString;
use serde_json::Value;

use super::client::Braintrust;
use super::rate_limit::RateLimit;
use crate::deadline::Deadline;

/// A server, with everything that a client needs to call it. Its thread ends with the test process.
pub struct TestServer {
    pub api_url: Url,
    pub rate_limit: RateLimit,
    http: Client,
    api_key: SecretString,
    received: Arc<Mutex<Vec<Received>>>,
}

#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    /// The path and the query.
    pub target: String,
    pub authorization: String,
    /// AWS's name of the call, where it is in a header.
    pub amz_target: String,
    /// The name of the `ai_secret` that a completion is to use.
    pub endpoint_name: String,
    pub body: String,
}

impl Received {
    pub fn query(&self, name: &str) -> Option<String> {
        let url = Url::parse("http://localhost").unwrap().join(&self.target).unwrap();
        url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub enum Answer {
    Response {
        status: u16,
        headers: String,
        body: String,
    },
    /// The connection is closed without a response.
    HangUp,
    /// The connection stays open without a response.
    Silence,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self::Response { status, headers: String::new(), body: String::new() }
    }

    pub fn json(body: &Value) -> Self {
        Self::status(200).with_body("application/json", &body.to_string())
    }

    pub fn with_body(self, media_type: &str, text: &str) -> Self {
        let Self::Response { status, headers, .. } = self else { panic!("only a response has a body") };
        Self::Response { status, headers, body: text.to_owned() }.with_header(&format!("content-type: {media_type}"))
    }

    pub fn with_header(self, header: &str) -> Self {
        let Self::Response { status, headers, body } = self else { panic!("only a response has headers") };
        Self::Response { status, headers: format!("{headers}{header}\r\n"), body }
    }
}

impl TestServer {
    pub fn start(mut answer: impl FnMut(&Received) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api_url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let record = received.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), |request| {
                    record.lock().unwrap().push(request.clone());
                    answer(request)
                });
            }
        });
        let http = crate::http::client(None, None).unwrap();
        Self { api_url, rate_limit: RateLimit::default(), http, api_key: SecretString::from("sk-test"), received }
    }

    /// A server that gives these answers in order, and then 418, which no test expects.
    pub fn start_with(answers: impl IntoIterator<Item = Answer, IntoIter: Send + 'static>) -> Self {
        let mut answers = answers.into_iter();
        Self::start(move |_| answers.next().unwrap_or(Answer::status(418)))
    }

    pub fn api(&self) -> Braintrust<'_> {
        Braintrust {
            http: &self.http,
            api_url: &self.api_url,
            api_key: &self.api_key,
            rate_limit: &self.rate_limit,
            deadline: Deadline::after(Duration::from_secs(30)),
        }
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

/// Answers the one request of a connection, unless the client gave up before it sent anything.
pub fn serve(mut stream: TcpStream, answer: impl FnOnce(&Received) -> Answer) {
    let Some(request) = receive(&stream) else { return };
    match answer(&request) {
        Answer::Response { status, headers, body } => {
            let length = body.len();
            let headers = format!("connection: close\r\ncontent-length: {length}\r\n{headers}");
            // A client that refuses a long body hangs up.
            let _ = write!(stream, "HTTP/1.1 {status} X\r\n{headers}\r\n{body}");
        }
        Answer::HangUp => {}
        Answer::Silence => thread::sleep(Duration::from_secs(60)),
    }
}

fn receive(stream: &TcpStream) -> Option<Received> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let start = line();
    let (method, rest) = start.split_once(' ')?;
    let headers: Vec<String> = std::iter::repeat_with(&mut line).take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let lines = headers.iter().filter_map(|line| line.split_once(": "));
        lines.clone().find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value).to_owned()
    };
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    Some(Received {
        method: method.to_owned(),
        target: rest.split(' ').next().unwrap().to_owned(),
        authorization: header("authorization"),
        amz_target: header("x-amz-target"),
        endpoint_name: header("x-bt-endpoint-name"),
        body: String::from_utf8(body).unwrap(),
    })
}
