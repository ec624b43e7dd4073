package main

import (
	"context"
	"fmt"
	"sync"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const batch = 10

type sending struct {
	options
	lock   sync.Mutex
	placed map[string]place
}

func (s *sending) put(id string, at place) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.placed[id] = at
}

// runSend tries every way to send, to a topic that the first send creates, and reads it all back.
func runSend(o options) {
	s := &sending{options: o, placed: map[string]place{}}
	via := newProducer(o)
	s.sync(via)
	s.async(via)
	for index := 0; index < o.count; index++ {
		must(via.SendOneWay(background, makeMessage(o, fmt.Sprintf("oneway-%d", index), index)))
	}
	s.batch(via)
	s.ordered()
	s.readBack()
	must(via.Shutdown())
}

func (s *sending) sync(via rocketmq.Producer) {
	for index := 0; index < s.count; index++ {
		id := fmt.Sprintf("sync-%d", index)
		result, err := via.SendSync(background, makeMessage(s.options, id, index))
		must(err)
		s.put(id, placeOf(result))
	}
}

func (s *sending) async(via rocketmq.Producer) {
	failures := make(chan string, s.count)
	for index := 0; index < s.count; index++ {
		id := fmt.Sprintf("async-%d", index)
		must(via.SendAsync(background,
			func(_ context.Context, result *primitive.SendResult, err error) {
				failures <- guarded(func() {
					must(err)
					s.put(id, placeOf(result))
				})
			}, makeMessage(s.options, id, index)))
	}
	for index := 0; index < s.count; index++ {
		same("", <-failures, "asynchronous send")
	}
}

func (s *sending) batch(via rocketmq.Producer) {
	for first := 0; first < s.count; first += batch {
		var messages []*primitive.Message
		for index := first; index < first+batch; index++ {
			id := fmt.Sprintf("batch-%d", index)
			messages = append(messages, makeSized(s.options, id, index, 50+index))
		}
		result, err := via.SendSync(background, messages...)
		must(err)
		at := placeOf(result)
		for index := first; index < first+batch; index++ {
			s.put(fmt.Sprintf("batch-%d", index), at)
			at.offset++
		}
	}
}

func (s *sending) ordered() {
	via := newProducer(s.options, producer.WithQueueSelector(producer.NewHashQueueSelector()))
	queueOf := map[int]int{}
	for index := 0; index < s.count; index++ {
		id := fmt.Sprintf("ordered-%d", index)
		key := index % 7
		message := makeMessage(s.options, id, index).WithShardingKey(fmt.Sprint(key))
		result, err := via.SendSync(background, message)
		must(err)
		at := placeOf(result)
		s.put(id, at)
		if queue, known := queueOf[key]; known {
			same(queue, at.queue, "queue of a key")
		}
		queueOf[key] = at.queue
	}
	must(via.Shutdown())
}

func (s *sending) readBack() {
	via := newPull(s.options, s.group+"-check")
	expected := len(s.placed) + s.count
	var found map[string]place
	all := publishQueues(s.options)
	until(30, fmt.Sprint(expected, " messages in the queues"), func() bool {
		found = map[string]place{}
		for _, queue := range all {
			readQueue(via, queue, 0, func(at place, message *primitive.MessageExt) {
				id, _ := checkMessage(message)
				_, twice := found[id]
				check(!twice, "twice: %s", id)
				large := len(message.Body) >= 4096
				same(large, int(message.StoreSize) < len(message.Body), "deflated: "+id)
				found[id] = at
			})
		}
		return len(found) >= expected
	})
	same(expected, len(found), "messages read")
	for id, at := range s.placed {
		same(at, found[id], "place of "+id)
	}
	for index := 0; index < s.count; index++ {
		id := fmt.Sprintf("oneway-%d", index)
		_, there := found[id]
		check(there, "lost: %s", id)
	}
	fact("messages", expected)
	fact("queues", len(all))
	must(via.Shutdown())
}
