# frozen_string_literal: true

# Logs users in, by name alone, and out.
class SessionsController < ApplicationController
  def create
    name = params[:name].to_s.strip
    log_in(User.named(name)) unless name.empty?
    redirect_to root_path
  end

  # The page and its socket close. The user is offline half a timeout later, unless another tab sends a heartbeat.
  def destroy
    log_out
    redirect_to root_path, status: :see_other
  end
end
