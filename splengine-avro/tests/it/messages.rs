//! The messages of the protocol, each of which is known to what answers them.

use serde_json::Value;

use crate::client::TestServer;

#[tokio::test]
async fn every_message_of_the_protocol_is_known() {
    let protocol: Value = serde_json::from_str(splengine_avro::protocol()).expect("JSON");
    let messages = protocol["messages"].as_object().expect("messages");
    assert!(!messages.is_empty());
    let server = TestServer::open(|avro| avro).await;
    let mut client = server.connect().await;
    client.shake_hands().await;
    let answered = messages.iter().filter(|(_, message)| message["one-way"] != true);
    for (serial, (name, message)) in (1..).zip(answered) {
        // No metadata, the name, and none of its parameters.
        assert!(name.len() < 64, "one byte");
        let call = [&[0, (name.len() << 1) as u8], name.as_bytes()].concat();
        client.send(serial, &call).await;
        let (serial_of_answer, answer) = client.answer().await;
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(serial_of_answer, serial);
        if message["request"] != serde_json::json!([]) {
            let unreadable = format!("the parameters of `{name}` can't be read");
            assert!(answer.contains(&unreadable), "{name}: {answer:?}");
        }
        assert!(!answer.contains("there is no such message"), "{name}: {answer:?}");
    }
}
