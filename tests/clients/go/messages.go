package main

import (
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/apache/rocketmq-client-go/v2/primitive"
)

var (
	sizes = []int{1, 100, 1000, 4095, 4096, 5000, 20_000}
	tags  = []string{"A", "B", "C"}
)

const text = "Grüße, 消息 = 😀"

// make builds a message that carries what is needed to check it wherever it arrives.
func makeMessage(o options, id string, index int) *primitive.Message {
	return makeSized(o, id, index, sizes[index%len(sizes)])
}

func makeSized(o options, id string, index, size int) *primitive.Message {
	body := makeBody(o.seed, index, size)
	message := primitive.NewMessage(o.topic, body)
	message.WithTag(tags[index%len(tags)])
	message.WithKeys([]string{"key-" + id})
	message.WithProperty("id", id)
	message.WithProperty("index", strconv.Itoa(index))
	message.WithProperty("crc", crc(body))
	message.WithProperty("text", text)
	return message
}

func makeBody(seed, index, size int) []byte {
	state := uint32(seed)*0x9E3779B1 + uint32(index)
	body := make([]byte, size)
	for at := range body {
		state = state*1664525 + 1013904223
		body[at] = 'a' + byte((state>>24)%26)
	}
	for at := 50; at+1 < size; at += 100 {
		copy(body[at:], "é")
	}
	return body
}

// checkMessage checks everything a message carries and answers its id and index.
func checkMessage(message *primitive.MessageExt) (string, int) {
	id := message.GetProperty("id")
	check(id != "", "no property id in %v", message)
	index, err := strconv.Atoi(message.GetProperty("index"))
	must(err)
	same(message.GetProperty("crc"), crc(message.Body), "crc of "+id)
	same(text, message.GetProperty("text"), "property text of "+id)
	same(tags[index%len(tags)], message.GetTags(), "tag of "+id)
	same("key-"+id, message.GetKeys(), "key of "+id)
	return id, index
}

func crc(body []byte) string {
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE(body))
}
