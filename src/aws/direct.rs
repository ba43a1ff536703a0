//! What the calls share that are sent without a client of the AWS SDK and answered in XML.

use reqwest::header::HeaderMap;
use reqwest::{Client, Request, Response};

use super::refusals;
use crate::error::{Error, Service};
use crate::http::{self, Failure};

/// Sends a signed request once, and returns the start of its response, whatever the status is.
pub(super) async fn send(
    client: &Client,
    request: Request,
    service: Service,
    call: &'static str,
) -> Result<Response, Error> {
    client.execute(request).await.map_err(|failure| {
        let class = http::class(&failure);
        let error = |problem| Error::new(class, service, call, problem, refusals::remedy(class));
        Failure::of(&failure).into_error(error)
    })
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The text of the first XML element of this name, which has no attributes. Empty if there is none.
pub(super) fn element(xml: &str, name: &str) -> String {
    let after = xml.split_once(&format!("<{name}>")).map_or("", |(_, after)| after);
    unescaped(after.split_once('<').map_or("", |(text, _)| text))
}

/// Replaces XML's references to characters. Others remain as they are.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (reference, rest) = part.split_once(';').unwrap_or_default();
        match character(reference) {
            Some(character) => {
                plain.push(character);
                plain.push_str(rest);
            }
            None => plain.extend(["&", part]),
        }
    }
    plain
}

fn character(reference: &str) -> Option<char> {
    let number = |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
    match reference {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        other => {
            let digits = other.strip_prefix('#')?;
            digits.strip_prefix('x').map_or_else(|| number(digits, 10), |digits| number(digits, 16))
        }
    }
}

/// A local server that answers one request after another with these responses, and returns what it received.
#[cfg(test)]
pub(super) fn serve(responses: Vec<String>) -> (reqwest::Url, std::thread::JoinHandle<Vec<Received>>) {
    use std::io::{BufRead, BufReader, Read, Write};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let server = std::thread::spawn(move || {
        let answered = responses.into_iter().map(|response| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let lines = reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty());
            let head = lines.collect::<Vec<_>>().join("\n");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            reader.read_exact(&mut body).unwrap();
            stream.write_all(response.replacen("\r\n", "\r\nconnection: close\r\n", 1).as_bytes()).unwrap();
            Received { head, body: String::from_utf8(body).unwrap() }
        });
        answered.collect()
    });
    (url, server)
}

#[cfg(test)]
#[derive(Debug)]
pub(super) struct Received {
    /// The request line and the headers.
    pub head: String,
    pub body: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_read_up_to_its_end_and_others_are_empty() {
        let xml = "<a xmlns=\"x\"><b>1 2</b>\n<b>3</b><c/><d></d><e>4";
        let read = ["b", "c", "d", "e", "f"].map(|name| element(xml, name));
        assert_eq!(read, ["1 2", "", "", "", ""]);
    }

    #[test]
    fn references_to_characters_are_replaced_and_others_remain() {
        let read = |text: &str| element(&format!("<a>{text}</a>"), "a");
        assert_eq!(read("&lt;&amp;lt;&gt; &quot;&apos;&#43;&#x2F;&#xe9;="), "<&lt;> \"'+/é=");
        for unknown in ["&", "a&b", "&;", "&nbsp;", "&#;", "&#x;", "&#xD800;", "&#99999999;"] {
            assert_eq!(read(unknown), unknown);
        }
    }
}
