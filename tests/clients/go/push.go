package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// seen counts what a push consumer got; safe from any goroutine.
type seen struct {
	lock    sync.Mutex
	times   map[string]int
	count   int
	failure string
}

func newSeen() *seen {
	return &seen{times: map[string]int{}}
}

func (s *seen) listen(_ context.Context, messages ...*primitive.MessageExt) (
	consumer.ConsumeResult, error) {
	failure := guarded(func() {
		for _, message := range messages {
			id, _ := checkMessage(message)
			s.lock.Lock()
			s.times[id]++
			s.count++
			s.lock.Unlock()
		}
	})
	if failure != "" {
		s.lock.Lock()
		s.failure = failure
		s.lock.Unlock()
	}
	return consumer.ConsumeSuccess, nil
}

func (s *seen) total() int {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.count
}

func (s *seen) different() int {
	s.lock.Lock()
	defer s.lock.Unlock()
	return len(s.times)
}

func (s *seen) has(id string) bool {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.times[id] > 0
}

func (s *seen) fine() {
	s.lock.Lock()
	defer s.lock.Unlock()
	same("", s.failure, "listener")
}

// stream sends in the background until told to end.
type stream struct {
	lock    sync.Mutex
	ids     []string
	ended   bool
	failure string
	done    chan struct{}
}

func startStream(o options, via rocketmq.Producer) *stream {
	s := &stream{done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.failure = guarded(func() {
			for index := 0; !s.over(); index++ {
				id := fmt.Sprintf("stream-%d", index)
				result, err := via.SendSync(background, makeMessage(o, id, index))
				must(err)
				placeOf(result)
				s.lock.Lock()
				s.ids = append(s.ids, id)
				s.lock.Unlock()
				time.Sleep(4 * time.Millisecond)
			}
		})
	}()
	return s
}

func (s *stream) over() bool {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.ended
}

func (s *stream) sent() []string {
	s.lock.Lock()
	defer s.lock.Unlock()
	return append([]string{}, s.ids...)
}

func (s *stream) end() []string {
	s.lock.Lock()
	s.ended = true
	s.lock.Unlock()
	<-s.done
	same("", s.failure, "background send")
	return s.ids
}

// runPush lets a second member join a group at work and leave it again.
func runPush(o options) {
	via := newProducer(o)
	createTopic(o, via)
	sending := startStream(o, via)
	first, second := newSeen(), newSeen()
	one := newPush(o, o.group, "*", first.listen)
	until(60, "the first member takes all", func() bool { return first.different() >= o.count })
	mark("alone")
	other := newPush(o, o.group, "*", second.listen)
	enough := o.count / 4
	until(60, "the second member gets a share", func() bool { return second.total() >= enough })
	before := first.total()
	until(60, "the first member keeps a share", func() bool {
		return first.total() >= before+enough
	})
	mark("both")
	must(other.Shutdown())
	already := len(sending.sent())
	until(60, "the first member takes over", func() bool {
		ids := sending.sent()
		return len(ids) >= already+enough && missing(ids[already:already+enough], first) == 0
	})
	ids := sending.end()
	until(60, "all messages arrive", func() bool { return missing(ids, first, second) == 0 })
	must(one.Shutdown())
	first.fine()
	second.fine()
	fact("sent", len(ids))
	fact("repeated", first.total()+second.total()-len(ids))
	must(via.Shutdown())
}

func missing(ids []string, by ...*seen) int {
	count := 0
	for _, id := range ids {
		there := false
		for _, one := range by {
			there = there || one.has(id)
		}
		if !there {
			count++
		}
	}
	return count
}

func runBroadcast(o options) {
	via := newProducer(o)
	createTopic(o, via)
	first, second := newSeen(), newSeen()
	model := consumer.WithConsumerModel(consumer.BroadCasting)
	one := newPush(o, o.group, "*", first.listen, model)
	other := newPush(o, o.group, "*", second.listen, model)
	sendAll(o, via)
	until(40, "both get all", func() bool {
		return first.different() == o.count && second.different() == o.count
	})
	same(o.count, first.total(), "first member")
	same(o.count, second.total(), "second member")
	must(one.Shutdown())
	must(other.Shutdown())
	first.fine()
	second.fine()
	must(via.Shutdown())
}

func sendAll(o options, via rocketmq.Producer) {
	for index := 0; index < o.count; index++ {
		result, err := via.SendSync(background, makeMessage(o, fmt.Sprintf("m-%d", index), index))
		must(err)
		placeOf(result)
	}
}

// runTags checks that only the tags asked for arrive, while a plain group sees the rest too.
func runTags(o options) {
	via := newProducer(o)
	createTopic(o, via)
	sendAll(o, via)
	some, all := newSeen(), newSeen()
	one := newPush(o, o.group, "A || C", some.listen)
	other := newPush(o, o.group+"-all", "*", all.listen)
	wanted := 0
	for index := 0; index < o.count; index++ {
		if tags[index%len(tags)] != "B" {
			wanted++
		}
	}
	until(40, "both groups get theirs", func() bool {
		return some.different() >= wanted && all.different() >= o.count
	})
	same(wanted, some.different(), "messages of two tags")
	for index := 0; index < o.count; index++ {
		id := fmt.Sprintf("m-%d", index)
		same(tags[index%len(tags)] != "B", some.has(id), "arrived: "+id)
	}
	must(one.Shutdown())
	must(other.Shutdown())
	some.fine()
	all.fine()
	must(via.Shutdown())
}
