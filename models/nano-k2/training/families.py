"""Families of tools that people really declare: weather, mail, shops, homes. A table; `toolbox` draws from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from words import Words

Draw = Callable[[Words], Any]
HELD_OUT = 8


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One parameter of a family: spellings of its name, type, values, and values' choice for enums."""

    names: str
    draw: Draw
    kind: str = "string"
    options: str = ""
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Family:
    """Variants of one tool: `{0}`, `{1}` in the requests are the slots, facts are what a result holds."""

    names: str
    about: str
    slots: tuple[Slot, ...]
    asks: tuple[str, ...]
    facts: tuple[tuple[str, Draw], ...]


def small(low: int, high: int) -> Draw:
    return lambda words: words.rng.randrange(low, high)


def among(text: str) -> Draw:
    options = text.split("|")
    return lambda words: words.one(options)


def families() -> tuple[Family, ...]:
    """Every curated family. The last `HELD_OUT` are kept for testing."""
    city = Slot(names="city location place town city_name", draw=Words.city)
    name = Slot(names="name person contact who", draw=Words.person)
    date = Slot(names="date day when on_date", draw=Words.date)
    clock = Slot(names="time at start_time", draw=Words.clock)
    code = Slot(names="id order_id number reference", draw=Words.code)
    sky = among("sunny|cloudy|rainy|windy|snowy|foggy|clear|stormy")
    return (
        Family(
            names="get weather|weather lookup|fetch current weather|weather|check weather|city weather",
            about="Get the current weather in a city.|Weather for a place|Current weather conditions for a location.",
            slots=(city,),
            asks=(
                "tell me the weather in {0}",
                "what's the weather in {0}",
                "what is the weather like in {0}",
                "how is the weather in {0} today",
                "is it raining in {0}",
                "do I need an umbrella in {0}",
                "check the weather for {0}",
                "weather in {0}",
                "is it cold in {0} right now",
            ),
            facts=(("temperature", small(-15, 40)), ("condition", sky)),
        ),
        Family(
            names="get forecast|weather forecast|forecast",
            about="Weather forecast for the next days.|Get a forecast.",
            slots=(city, Slot(names="days number_of_days count", draw=small(1, 15), kind="integer")),
            asks=(
                "give me the forecast for {0} for {1} days",
                "what will the weather be in {0} over the next {1} days",
                "forecast for {0}, {1} days",
                "how will the next {1} days be in {0}",
            ),
            facts=(("high", small(5, 40)), ("low", small(-15, 15)), ("condition", sky)),
        ),
        Family(
            names="get time|current time|local time|time in city",
            about="The local time in a city.|Get the current time somewhere.",
            slots=(city,),
            asks=("what time is it in {0}", "tell me the time in {0}", "current time in {0}", "how late is it in {0} now"),
            facts=(("time", Words.clock),),
        ),
        Family(
            names="send email|email send|mail send|write email",
            about="Send an email.|Sends a mail to somebody.",
            slots=(Slot(names="to recipient address", draw=Words.email), Slot(names="body message text content", draw=Words.sentence)),
            asks=("send an email to {0} saying {1}", "email {0}: {1}", "write to {0} that {1}", "mail {0} the message {1}"),
            facts=(("message_id", Words.code),),
        ),
        Family(
            names="send message|text message send|send sms",
            about="Send a text message.|Text somebody.",
            slots=(name, Slot(names="message text body", draw=Words.sentence)),
            asks=("text {0}: {1}", "send {0} a message saying {1}", "tell {0} {1}", "message {0} that {1}"),
            facts=(("delivered_at", Words.clock),),
        ),
        Family(
            names="set alarm|create alarm|alarm set",
            about="Set an alarm.",
            slots=(clock,),
            asks=("set an alarm for {0}", "wake me up at {0}", "alarm at {0}", "I have to get up at {0}, set an alarm"),
            facts=(("alarm_id", Words.code),),
        ),
        Family(
            names="set timer|start timer|timer",
            about="Start a countdown timer.",
            slots=(Slot(names="minutes duration duration_minutes", draw=small(1, 120), kind="integer"),),
            asks=("set a timer for {0} minutes", "start a {0} minute timer", "timer, {0} minutes", "remind me in {0} minutes"),
            facts=(("ends_at", Words.clock),),
        ),
        Family(
            names="add reminder|create reminder|remind me",
            about="Create a reminder.",
            slots=(Slot(names="text what task", draw=Words.sentence), date),
            asks=("remind me on {1}: {0}", "add a reminder for {1} with the text {0}", "create a reminder {0} on {1}"),
            facts=(("reminder_id", Words.code),),
        ),
        Family(
            names="create event|add calendar event|schedule meeting",
            about="Add an event to the calendar.",
            slots=(Slot(names="title subject name", draw=Words.phrase), date, clock),
            asks=("schedule {0} on {1} at {2}", "put {0} in my calendar for {1} at {2}", "create an event called {0} on {1}, {2}"),
            facts=(("event_id", Words.code),),
        ),
        Family(
            names="get stock price|stock quote|share price",
            about="Price of a stock.",
            slots=(
                Slot(
                    names="symbol ticker stock", draw=lambda w: "".join(w.rng.choice("ABCDEFGHIKLMNOPRSTUVXYZ") for _ in range(w.rng.choice((3, 4))))
                ),
            ),
            asks=("what is the price of {0}", "how much is {0} stock", "stock price of {0}", "quote for {0}", "how is {0} doing on the market"),
            facts=(("price", Words.decimal),),
        ),
        Family(
            names="convert currency|exchange|currency converter",
            about="Convert money between currencies.",
            slots=(
                Slot(names="amount value sum", draw=Words.integer, kind="integer"),
                Slot(names="from_currency source from", draw=among("USD|EUR|GBP|JPY|CHF|INR|CNY|SEK")),
                Slot(names="to_currency target to", draw=among("AUD|CAD|NOK|PLN|CZK|BRL|MXN|KRW")),
            ),
            asks=("convert {0} {1} to {2}", "how much is {0} {1} in {2}", "change {0} {1} into {2}", "what are {0} {1} worth in {2}"),
            facts=(("result", Words.decimal),),
        ),
        Family(
            names="search web|web search|search|internet search",
            about="Search the web.",
            slots=(Slot(names="query q search_term", draw=Words.phrase),),
            asks=("search the web for {0}", "look up {0} online", "google {0}", "find information about {0}", "search for {0}"),
            facts=(("title", Words.phrase), ("url", Words.url)),
        ),
        Family(
            names="translate|translate text|translation",
            about="Translate text.",
            slots=(
                Slot(names="text phrase content", draw=Words.sentence),
                Slot(names="language target_language to", draw=among("French|German|Spanish|Italian|Japanese|Polish|Swedish|Turkish")),
            ),
            asks=("translate {0} to {1}", "how do you say {0} in {1}", "what is {0} in {1}"),
            facts=(("translation", Words.phrase),),
        ),
        Family(
            names="play music|play song|music play",
            about="Play a song.",
            slots=(Slot(names="song title track", draw=Words.phrase), Slot(names="artist singer band", draw=Words.person)),
            asks=("play {0} by {1}", "I want to hear {0} by {1}", "put on {0} from {1}"),
            facts=(("duration", Words.clock),),
        ),
        Family(
            names="turn on light|set light|light control|switch light",
            about="Switch a light.",
            slots=(
                Slot(names="room area where", draw=among("kitchen|bedroom|bathroom|hall|garage|office|living room|garden")),
                Slot(names="state mode action", draw=among("on|off"), kind="enum", options="on|off"),
            ),
            asks=("turn {1} the light in the {0}", "switch the {0} light {1}", "{0} lights {1}", "turn the lights in the {0} {1}"),
            facts=(("state", among("on|off")),),
        ),
        Family(
            names="set temperature|thermostat set|heating",
            about="Set the thermostat.",
            slots=(
                Slot(names="degrees temperature value", draw=small(12, 30), kind="integer"),
                Slot(names="room zone area", draw=among("kitchen|bedroom|bathroom|office|living room|attic")),
            ),
            asks=("set the {1} to {0} degrees", "make it {0} degrees in the {1}", "heat the {1} to {0}"),
            facts=(("current", small(10, 30)),),
        ),
        Family(
            names="get order|order status|track order|find order",
            about="Status of an order.",
            slots=(code,),
            asks=("where is my order {0}", "what is the status of order {0}", "track order {0}", "has order {0} been shipped", "check on order {0}"),
            facts=(("status", among("shipped|packed|delivered|delayed|cancelled")), ("carrier", Words.made_up)),
        ),
        Family(
            names="cancel order|order cancel",
            about="Cancel an order.",
            slots=(code,),
            asks=("cancel order {0}", "I don't want order {0} any more, cancel it", "please stop order {0}"),
            facts=(("refund", Words.decimal),),
        ),
        Family(
            names="search flights|find flights|flight search",
            about="Search flights between two cities.",
            slots=(Slot(names="origin from from_city", draw=Words.city), Slot(names="destination to to_city", draw=Words.city), date),
            asks=("find flights from {0} to {1} on {2}", "I want to fly from {0} to {1} on {2}", "flights to {1} from {0} for {2}"),
            facts=(("flight", Words.code), ("price", Words.integer)),
        ),
        Family(
            names="book hotel|reserve hotel|hotel booking",
            about="Book a hotel room.",
            slots=(
                city,
                Slot(names="nights number_of_nights stay", draw=small(1, 15), kind="integer"),
                Slot(names="guests people persons", draw=small(1, 7), kind="integer"),
            ),
            asks=(
                "book a hotel in {0} for {1} nights and {2} guests",
                "I need a room in {0}, {1} nights, {2} people",
                "reserve {1} nights in {0} for {2}",
            ),
            facts=(("hotel", Words.made_up), ("confirmation", Words.code)),
        ),
        Family(
            names="book table|reserve table|restaurant booking",
            about="Reserve a table.",
            slots=(
                Slot(names="restaurant place venue", draw=lambda w: w.made_up().capitalize()),
                Slot(names="people guests party_size", draw=small(1, 12), kind="integer"),
                clock,
            ),
            asks=("book a table at {0} for {1} at {2}", "reserve {0} for {1} people at {2}", "table for {1} at {0}, {2}"),
            facts=(("confirmation", Words.code),),
        ),
        Family(
            names="calculate|calculator|evaluate",
            about="Evaluate an arithmetic expression.",
            slots=(Slot(names="expression formula input", draw=lambda w: f"{w.integer()} {w.one('+-*/')} {w.integer()}"),),
            asks=("calculate {0}", "what is {0}", "use the calculator for {0}", "compute {0}"),
            facts=(("result", Words.decimal),),
        ),
        Family(
            names="find user|get user|user lookup|search customer",
            about="Look up a user by name.",
            slots=(name,),
            asks=("find the user {0}", "look up {0}", "who is {0} in the system", "get the account of {0}"),
            facts=(("user_id", Words.code), ("email", Words.email)),
        ),
        Family(
            names="read file|open file|cat file|file read",
            about="Read a file.",
            slots=(Slot(names="path file filename", draw=Words.path),),
            asks=("read the file {0}", "show me {0}", "what is in {0}", "open {0}", "print the contents of {0}"),
            facts=(("content", Words.sentence),),
        ),
        Family(
            names="delete file|remove file",
            about="Delete a file.",
            slots=(Slot(names="path file filename", draw=Words.path),),
            asks=("delete {0}", "remove the file {0}", "get rid of {0}"),
            facts=(("freed_bytes", Words.integer),),
        ),
        Family(
            names="get distance|distance between|route distance",
            about="Distance between two cities.",
            slots=(Slot(names="start from origin", draw=Words.city), Slot(names="end to destination", draw=Words.city)),
            asks=("how far is it from {0} to {1}", "distance between {0} and {1}", "what's the distance from {0} to {1}"),
            facts=(("kilometers", Words.integer),),
        ),
        Family(
            names="get news|news search|latest news",
            about="Latest news about a topic.",
            slots=(Slot(names="topic subject keyword", draw=Words.noun),),
            asks=("what's new about {0}", "any news on {0}", "latest news about {0}"),
            facts=(("headline", Words.sentence),),
        ),
        Family(
            names="add to cart|cart add|buy item",
            about="Put a product in the cart.",
            slots=(Slot(names="product item article", draw=Words.noun), Slot(names="quantity amount count", draw=small(1, 30), kind="integer")),
            asks=("add {1} {0} to my cart", "put {1} of {0} in the basket", "I'd like {1} {0}, add them to the cart"),
            facts=(("total", Words.decimal),),
        ),
        Family(
            names="find parking|parking search|get parking spots",
            about="Find parking in a city.|Free parking spots",
            slots=(city, Slot(names="hours duration hours_needed", draw=small(1, 12), kind="integer")),
            asks=("find parking in {0} for {1} hours", "where can I park in {0} for {1} hours", "I need a parking spot in {0}, {1} hours"),
            facts=(("spots", small(1, 90)), ("price", Words.decimal)),
        ),
        Family(
            names="track package|package status|parcel tracking",
            about="Where a parcel is.|Track a package by number.",
            slots=(Slot(names="tracking_number number parcel code", draw=Words.code),),
            asks=("where is my parcel {0}", "track the package {0}", "has package {0} arrived", "what's the status of parcel {0}"),
            facts=(("status", among("delivered|in transit|delayed|lost")), ("city", Words.city)),
        ),
        Family(
            names="get exchange rate|exchange rate|currency rate",
            about="Exchange rate of two currencies.",
            slots=(
                Slot(names="base from_currency source", draw=among("USD|EUR|GBP|JPY|CHF|INR")),
                Slot(names="quote to_currency target", draw=among("AUD|CAD|NOK|PLN|CZK|BRL")),
            ),
            asks=("what is the exchange rate from {0} to {1}", "{0} to {1} rate", "how many {1} do I get for one {0}", "rate of {0} in {1}"),
            facts=(("rate", Words.decimal),),
        ),
        Family(
            names="create ticket|open ticket|ticket create|file bug",
            about="Open a ticket in the tracker.|Create a bug report.",
            slots=(
                Slot(names="title summary subject", draw=Words.phrase),
                Slot(names="priority severity level", draw=among("low|medium|high"), kind="enum", options="low|medium|high"),
            ),
            asks=("open a ticket called {0} with {1} priority", "create a {1} priority ticket: {0}", "file a bug {0}, {1} priority"),
            facts=(("ticket", Words.code),),
        ),
        Family(
            names="run command|execute command|shell|exec",
            about="Run a shell command.",
            slots=(
                Slot(
                    names="command cmd script",
                    draw=lambda w: w.one(("ls {}", "cat {}", "rm {}", "wc -l {}", "head {}", "python {}")).format(w.path()),
                ),
            ),
            asks=("run {0}", "execute {0}", "run the command {0}", "please run {0} in the shell"),
            facts=(("exit_code", small(0, 3)), ("output", Words.phrase)),
        ),
        Family(
            names="query database|run query|count rows|table rows",
            about="Number of rows of a database table.",
            slots=(Slot(names="table table_name relation", draw=Words.word),),
            asks=("how many rows are in the table {0}", "count the rows of {0}", "rows in table {0}"),
            facts=(("rows", Words.integer),),
        ),
        Family(
            names="get definition|define word|dictionary|word meaning",
            about="Definition of a word.|Look a word up in the dictionary.",
            slots=(Slot(names="word term entry", draw=Words.word),),
            asks=("look up the word {0} in the dictionary", "find the definition of {0}", "get the dictionary entry of {0}"),
            facts=(("definition", Words.phrase),),
        ),
        Family(
            names="log workout|add workout|track exercise",
            about="Log a workout.",
            slots=(
                Slot(names="activity exercise kind", draw=among("running|cycling|swimming|rowing|hiking|yoga")),
                Slot(names="minutes duration time", draw=small(5, 180), kind="integer"),
            ),
            asks=("log {1} minutes of {0}", "I did {1} minutes of {0}, log it", "add a workout: {0} for {1} minutes"),
            facts=(("calories", small(50, 900)),),
        ),
        Family(
            names="set volume|volume control|change volume",
            about="Set the volume.",
            slots=(Slot(names="level volume percent", draw=small(0, 101), kind="integer"),),
            asks=("set the volume to {0}", "volume {0}", "turn the volume to {0} percent", "change volume to {0}"),
            facts=(("volume", small(0, 101)),),
        ),
        Family(
            names="get population|population of|city population",
            about="Population of a city.",
            slots=(city,),
            asks=("how many people live in {0}", "what is the population of {0}", "population of {0}"),
            facts=(("population", Words.integer),),
        ),
        Family(
            names="find recipe|recipe search|get recipe",
            about="Find a recipe for a dish.",
            slots=(Slot(names="dish food meal", draw=Words.noun),),
            asks=("how do I cook {0}", "find a recipe for {0}", "recipe for {0}"),
            facts=(("minutes", small(10, 120)), ("servings", small(1, 9))),
        ),
        Family(
            names="call taxi|order taxi|request ride",
            about="Order a taxi.",
            slots=(Slot(names="pickup from start", draw=Words.city), clock),
            asks=("order a taxi at {0} for {1}", "I need a ride from {0} at {1}", "get me a cab from {0}, {1}"),
            facts=(("driver", Words.first), ("plate", Words.code)),
        ),
        Family(
            names="air quality|get air quality",
            about="Air quality of a city.",
            slots=(city,),
            asks=("how is the air in {0}", "air quality in {0}", "is the air clean in {0}"),
            facts=(("index", small(5, 200)),),
        ),
        Family(
            names="renew library loan|renew loan|library renewal",
            about="Renew the loan of a library book.",
            slots=(Slot(names="book title item", draw=Words.phrase), Slot(names="days weeks extra_days", draw=small(1, 30), kind="integer")),
            asks=("renew my library loan of {0} for {1} days", "please renew the loan for {0}, {1} more days", "renew the book {0} by {1} days"),
            facts=(("due", Words.date),),
        ),
        Family(
            names="water plants|irrigation start|garden irrigation",
            about="Water the plants of a garden bed.",
            slots=(Slot(names="bed plot zone", draw=Words.word), Slot(names="liters litres amount", draw=small(1, 90), kind="integer")),
            asks=("water the plants in bed {0} with {1} liters", "give the plants in {0} {1} liters of water", "water plot {0}, {1} liters"),
            facts=(("moisture", small(1, 100)),),
        ),
        Family(
            names="tide times|get tides|tide table",
            about="High and low tides at a harbour.",
            slots=(Slot(names="harbour harbor port", draw=Words.city), date),
            asks=("when are the tides in {0} on {1}", "tide times for {0} on {1}", "what are the tides at {0}, {1}"),
            facts=(("high", Words.clock), ("low", Words.clock)),
        ),
        Family(
            names="print document|printer job|send to printer",
            about="Print a document on a printer.",
            slots=(Slot(names="document file path", draw=Words.path), Slot(names="copies count number_of_copies", draw=small(1, 40), kind="integer")),
            asks=("print {1} copies of {0}", "send {0} to the printer, {1} copies", "print the document {0} {1} times"),
            facts=(("job", Words.code),),
        ),
    )
