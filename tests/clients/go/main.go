// Runs one scenario with the Go client and ends with one line of JSON.
// The contract is in tests/clients/README.md.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

type options struct {
	scenario, namesrv, topic, group string
	count, seed                     int
}

var scenarios = map[string]func(options){
	"send":        runSend,
	"push":        runPush,
	"broadcast":   runBroadcast,
	"tags":        runTags,
	"orderly":     runOrderly,
	"retry":       runRetry,
	"pull":        runPull,
	"delay":       runDelay,
	"transaction": runTransaction,
	"restart":     runRestart,
}

var (
	factsLock sync.Mutex
	facts     = map[string]any{}
	input     = bufio.NewScanner(os.Stdin)
)

func main() {
	rlog.SetLogLevel("fatal")
	options := parse()
	begin := time.Now()
	failure := guarded(func() {
		run, known := scenarios[options.scenario]
		check(known, "no scenario %s", options.scenario)
		run(options)
	})
	factsLock.Lock()
	facts["scenario"] = options.scenario
	facts["ok"] = failure == ""
	facts["ms"] = time.Since(begin).Milliseconds()
	if failure != "" {
		facts["error"] = failure
	}
	line, _ := json.Marshal(facts)
	fmt.Println(string(line))
	if failure != "" {
		os.Exit(1)
	}
}

func parse() options {
	var o options
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: <scenario> --namesrv H:P --topic T --group G")
		os.Exit(1)
	}
	o.scenario = os.Args[1]
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	flags.StringVar(&o.namesrv, "namesrv", "", "name servers, separated by ;")
	flags.StringVar(&o.topic, "topic", "", "topic of this run")
	flags.StringVar(&o.group, "group", "", "group of this run")
	flags.IntVar(&o.count, "count", 100, "messages")
	flags.IntVar(&o.seed, "seed", 1, "seed of the bodies")
	_ = flags.Parse(os.Args[2:])
	return o
}

// guarded turns a failed check into a text.
func guarded(run func()) (failure string) {
	defer func() {
		if thrown := recover(); thrown != nil {
			debug.PrintStack()
			failure = fmt.Sprint(thrown)
		}
	}()
	run()
	return ""
}

func fact(name string, value any) {
	factsLock.Lock()
	defer factsLock.Unlock()
	facts[name] = value
}

func mark(text string) {
	fmt.Println("mark " + text)
}

func check(holds bool, format string, values ...any) {
	if !holds {
		panic(fmt.Sprintf(format, values...))
	}
}

func must(err error) {
	check(err == nil, "%v", err)
}

func same[T comparable](expected, found T, what string) {
	check(expected == found, "%s: expected %v, found %v", what, expected, found)
}

func until(seconds int, what string, holds func() bool) {
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	for !holds() {
		check(time.Now().Before(end), "not within %d s: %s", seconds, what)
		time.Sleep(20 * time.Millisecond)
	}
}

func awaitLine(expected string) {
	check(input.Scan(), "the runner left")
	same(expected, input.Text(), "line from the runner")
}
