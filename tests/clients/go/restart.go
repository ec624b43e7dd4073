package main

import (
	"fmt"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

const threads = 3

type surviving struct {
	options
	lock         sync.Mutex
	acknowledged map[string]place
	refused      int
	ended        bool
}

// runRestart sends while the server is killed and started again; nothing acknowledged may be lost.
func runRestart(o options) {
	via := newProducer(o)
	createTopic(o, via)
	kept := o
	kept.topic += "-kept"
	kept.group += "-kept"
	createTopic(kept, via)
	sendSpread(kept)
	committed := commitHalf(kept)
	s := &surviving{options: o, acknowledged: map[string]place{}}
	s.through(via, func() { rest(kept, committed) })
	must(via.Shutdown())
}

func (s *surviving) size() int {
	s.lock.Lock()
	defer s.lock.Unlock()
	return len(s.acknowledged)
}

func (s *surviving) through(via rocketmq.Producer, after func()) {
	arrived := newSeen()
	one := newPush(s.options, s.group, "*", arrived.listen)
	begin := time.Now()
	var running sync.WaitGroup
	for number := 0; number < threads; number++ {
		running.Add(1)
		go func() {
			defer running.Done()
			s.sendOn(via, number)
		}()
	}
	// The reference writes committed offsets to disk every 5 s.
	until(60, "enough acknowledged", func() bool {
		return s.size() >= s.options.count && time.Since(begin) > 6500*time.Millisecond
	})
	mark("steady")
	awaitLine("restarted")
	before := s.size()
	until(90, "enough acknowledged after the restart", func() bool {
		return s.size() >= before+s.options.count
	})
	s.lock.Lock()
	s.ended = true
	s.lock.Unlock()
	running.Wait()
	fact("acknowledged", len(s.acknowledged))
	fact("refused", s.refused)
	after()
	s.inPlace()
	ids := make([]string, 0, len(s.acknowledged))
	for id := range s.acknowledged {
		ids = append(ids, id)
	}
	until(90, "all acknowledged messages consumed", func() bool {
		return missing(ids, arrived) == 0
	})
	fact("repeated", arrived.total()-arrived.different())
	must(one.Shutdown())
	arrived.fine()
}

func (s *surviving) sendOn(via rocketmq.Producer, number int) {
	for index := number; ; index += threads {
		id := fmt.Sprintf("t%d-%d", number, index)
		result, err := via.SendSync(background, makeSized(s.options, id, index, 300))
		s.lock.Lock()
		ended := s.ended
		if err == nil && result.Status == primitive.SendOK {
			s.acknowledged[id] = placeOf(result)
		} else {
			s.refused++
		}
		s.lock.Unlock()
		if ended {
			return
		}
		pause := 5 * time.Millisecond
		if err != nil {
			pause = 100 * time.Millisecond
		}
		time.Sleep(pause)
	}
}

// inPlace: every acknowledged message lies where its acknowledgement said, in the order sent.
func (s *surviving) inPlace() {
	via := newPull(s.options, s.group+"-check")
	stored := map[place]string{}
	for _, queue := range publishQueues(s.options) {
		last := map[string]int{}
		readQueue(via, queue, 0, func(at place, message *primitive.MessageExt) {
			id, index := checkMessage(message)
			stored[at] = id
			if s.acknowledged[id] == at {
				earlier, known := last[id[:2]]
				check(!known || earlier < index, "order in %v: %s", queue, id)
				last[id[:2]] = index
			}
		})
	}
	for id, at := range s.acknowledged {
		same(id, stored[at], fmt.Sprint("acknowledged at ", at))
	}
	fact("unacknowledged", len(stored)-len(s.acknowledged))
	must(via.Shutdown())
}
