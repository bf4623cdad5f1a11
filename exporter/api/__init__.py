"""The JSON API of the fleet, version 1: parameters, paging, answers, the stream of events, its OpenAPI document."""
